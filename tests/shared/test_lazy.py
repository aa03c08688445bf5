"""Public names that are imported when they are used."""

import pytest

from shared.lazy import public_names


def test_a_name_is_looked_up_in_its_file_and_an_unknown_one_refused() -> None:
    load = public_names("os", {"join": "path"})
    assert load("join")("a", "b") == "a/b"
    with pytest.raises(AttributeError, match=r"^module 'os' has no attribute 'pi'$"):
        load("pi")
