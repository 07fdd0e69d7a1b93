"""What tests share: recorded material, a scripted upstream, official SDKs as readers, and the rules that
judge.

Nothing in this package imports the product, so that a defect there cannot hide itself here.
"""
