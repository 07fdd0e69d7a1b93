"""How many tokens a request is: counted with a tokenizer where one is installed, estimated where none is.

Pure: no clock, no I/O, no provider is asked and nothing is downloaded. `content.py` says what counts, `families.py` what each
provider puts around it, `estimate.py` and `tokenizer.py` turn text into numbers, `calibration.py` learns from what was billed.
"""
