"""The tokens of a folder lie in it, whatever its name."""

import pytest

from stabmon.store.tokens import FILE, Scope, in_folder


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a#b", "a b"])
def test_tokens_lie_in_their_own_folder_whatever_its_name(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    secret = in_folder(folder).create("reader", Scope.READ)
    assert in_folder(folder).scope_of(secret) is Scope.READ
    assert [file.name for file in folder.iterdir()] == [FILE]
    assert (folder / FILE).stat().st_size > 0
    assert [file.name for file in tmp_path.iterdir()] == [name]
