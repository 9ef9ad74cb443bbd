"""Ids of any length and script keep their codes."""

from hypothesis import given
from hypothesis import strategies as st

from recsys.model.interactions.vocab import Vocabulary

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


def test_codes_are_given_in_order_of_appearance_and_stay() -> None:
    vocabulary = Vocabulary(["b"])
    assert vocabulary.extend(["a", "b", "a", "c"]).tolist() == [1, 0, 1, 2]
    assert vocabulary.extend(["c", "d"]).tolist() == [2, 3]
    assert vocabulary.ids == ["b", "a", "c", "d"]
    assert vocabulary.since(2) == ["c", "d"]
    assert vocabulary.since(4) == []


def test_looking_up_an_unknown_id_adds_nothing() -> None:
    vocabulary = Vocabulary(["a"])
    assert vocabulary.lookup(["x", "a", ""]).tolist() == [-1, 0, -1]
    assert len(vocabulary) == 1


@given(st.lists(st.lists(ANY_TEXT)))
def test_codes_equal_those_of_a_plain_dictionary(batches: list[list[str]]) -> None:
    vocabulary, plain = Vocabulary(), dict[str, int]()
    for ids in batches:
        expected = [plain.setdefault(text, len(plain)) for text in ids]
        assert vocabulary.extend(ids).tolist() == expected
    assert vocabulary.ids == list(plain)
