import pytest

from tests.commands.desk import PlainDesk


@pytest.fixture
def desk() -> PlainDesk:
    return PlainDesk()
