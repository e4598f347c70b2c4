"""The contract itself, and what opening a collection makes of it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from f2rag.contract import SCHEMA_VERSION, EmbeddingContract
from f2rag.errors import ContractMismatchError, InputError, StoreError
from f2rag.store import Layout, Lexical, agreement

CONTRACT = EmbeddingContract(model="m", revision="r", native_dimensions=64, dimensions=32)


class Collection:
    """As much of a backend as the agreement asks."""

    place = "a place"

    def __init__(self, stored=None, *, vector=(32, "Cosine"), levels=()):
        self.stored = stored
        self.found = {f"mrl{level}": (level, "Cosine") for level in levels}
        if vector is not None:
            self.found[""] = vector
        self.indexed = {}

    def read_contract(self):
        return self.stored

    def write_contract(self, stored):
        self.stored = stored

    def vectors_found(self):
        return self.found

    def create_indexes(self, fields):
        self.indexed = dict(fields)


def agree(backend, contract=CONTRACT, *, adopt=False, layout=None):
    record = agreement.agree(backend, contract, layout=layout, collection="docs", adopt=adopt)
    return record.contract


def recorded(contract=CONTRACT, **options):
    return agreement.Record(contract=contract, **options).to_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"revision": "s"},
        {"native_dimensions": 65},
        {"dimensions": 31},
        {"pooling": "mean"},
        {"normalization": "none"},
        {"document_instruction": "passage: "},
    ],
)
def test_every_field_that_changes_document_vectors_changes_the_fingerprint(change):
    other = dataclasses.replace(CONTRACT, **change)
    assert other.fingerprint != CONTRACT.fingerprint
    ((name, value),) = change.items()
    assert CONTRACT.differences(other) == {name: (getattr(CONTRACT, name), value)}


@pytest.mark.parametrize("change", [{"max_length": 9}, {"dtype": "bfloat16"}, {"weight_dtype": "int8"}])
def test_fields_that_are_only_recorded_do_not(change):
    other = dataclasses.replace(CONTRACT, **change)
    assert other.fingerprint == CONTRACT.fingerprint
    assert CONTRACT.differences(other) == {}
    assert agree(Collection(CONTRACT.to_dict()), other) == CONTRACT


def test_the_fingerprint_is_the_one_that_stored_collections_hold():
    # A literal: a change of it orphans every collection out there.
    assert CONTRACT.fingerprint == "ef9935ed4f19486689bdb63af01bc1b7"


def test_a_contract_survives_json():
    assert EmbeddingContract.from_dict(json.loads(json.dumps(CONTRACT.to_dict()))) == CONTRACT


def test_keys_of_a_newer_version_are_ignored():
    assert EmbeddingContract.from_dict({**CONTRACT.to_dict(), "colour": "red"}) == CONTRACT


def test_an_equal_contract_opens():
    assert agree(Collection(CONTRACT.to_dict())) == CONTRACT


def test_without_one_the_stored_contract_is_taken():
    assert agree(Collection(CONTRACT.to_dict()), None) == CONTRACT


def test_another_width_is_refused_with_the_way_out():
    with pytest.raises(ContractMismatchError) as caught:
        agree(Collection(CONTRACT.to_dict()), dataclasses.replace(CONTRACT, dimensions=16))
    message = str(caught.value)
    assert "dimensions: stored 32, given 16" in message
    assert "Open it with dimensions=32" in message
    assert "another collection name" in message
    assert "f2rag reindex" in message
    assert "'docs'" in message
    assert "a place" in message


def test_another_model_is_refused_naming_each_difference():
    other = dataclasses.replace(CONTRACT, model="n", revision="s")
    with pytest.raises(ContractMismatchError, match="model: stored 'm', given 'n'; revision: stored 'r', given 's'"):
        agree(Collection(CONTRACT.to_dict()), other)
    with pytest.raises(ContractMismatchError, match="Open it with model 'm' at dimensions=32"):
        agree(Collection(CONTRACT.to_dict()), other)


@pytest.mark.parametrize("contract", [CONTRACT, None])
def test_a_foreign_collection_is_refused(contract):
    foreign = Collection()
    with pytest.raises(ContractMismatchError, match=r"has no f2rag contract.*adopt=True"):
        agree(foreign, contract)
    assert foreign.stored is None


def test_a_foreign_collection_can_be_adopted():
    foreign = Collection()
    assert agree(foreign, adopt=True) == CONTRACT
    assert foreign.stored == recorded(adopted=True)
    assert foreign.indexed["metadata.language"] == "keyword"
    assert agree(foreign) == CONTRACT


def test_an_adopted_collection_can_get_indexes_and_no_levels():
    foreign = Collection()
    agree(foreign, adopt=True, layout=Layout(fields={"year": "integer"}))
    assert foreign.indexed["metadata.year"] == "integer"
    with pytest.raises(ContractMismatchError, match=r"levels: stored \[\], given \[8\]"):
        agree(Collection(), adopt=True, layout=Layout(levels=(8,)))


def test_a_collection_of_the_first_version_has_a_plain_layout():
    first = {**CONTRACT.to_dict(), "schema_version": 1}
    assert agreement.read_record(first, "a place") == agreement.Record(
        contract=dataclasses.replace(CONTRACT, schema_version=1)
    )


LAYOUT = Layout(levels=(8, 16), quantization="int8", lexical=Lexical(k=1.0), fields={"year": "integer"})


def test_a_record_survives_json():
    record = agreement.Record(contract=CONTRACT, layout=LAYOUT, adopted=True)
    assert agreement.read_record(json.loads(json.dumps(record.to_dict())), "a place") == record


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Layout(), r"levels: stored \[8, 16\], given \[\]"),
        (dataclasses.replace(LAYOUT, quantization=None), "quantization: stored 'int8', given None"),
        (dataclasses.replace(LAYOUT, lexical=Lexical()), "lexical: stored .*'k': 1.0"),
        (dataclasses.replace(LAYOUT, fields={}), "fields: stored"),
    ],
    ids=["levels", "quantization", "lexical", "fields"],
)
def test_another_layout_is_refused_with_both_sides_and_the_way_out(other, message):
    collection = Collection(recorded(layout=LAYOUT), levels=(8, 16))
    agree(collection, layout=LAYOUT)
    agree(collection)
    with pytest.raises(ContractMismatchError, match=rf"(?s){message}.*reindex"):
        agree(collection, layout=other)


def test_a_level_that_the_storage_lacks():
    with pytest.raises(StoreError, match="a vector 'mrl8' of 8 dimensions under cosine, its storage has none"):
        agree(Collection(recorded(layout=LAYOUT)))


def test_adopting_is_not_overwriting():
    mine = Collection(dataclasses.replace(CONTRACT, model="n").to_dict())
    with pytest.raises(ContractMismatchError):
        agree(mine, adopt=True)


@pytest.mark.parametrize("vector", [(31, "Cosine"), (32, "Dot"), None])
def test_only_one_unnamed_cosine_vector_of_the_right_width_can_be_adopted(vector):
    foreign = Collection(vector=vector)
    with pytest.raises(ContractMismatchError, match="cannot be adopted"):
        agree(foreign, adopt=True)
    assert foreign.stored is None


def test_adopting_needs_a_contract():
    with pytest.raises(InputError, match=r"contract=encoder.contract"):
        agree(Collection(), None, adopt=True)


def test_a_newer_contract_asks_for_an_upgrade():
    newer = {**CONTRACT.to_dict(), "schema_version": SCHEMA_VERSION + 1}
    with pytest.raises(StoreError, match=r"newer f2rag.*pip install --upgrade f2rag"):
        agree(Collection(newer))


@pytest.mark.parametrize(
    "stored",
    [
        {"model": "m"},
        {**CONTRACT.to_dict(), "model": "edited by hand"},
        {key: value for key, value in CONTRACT.to_dict().items() if key != "fingerprint"},
        {},
    ],
)
def test_a_damaged_contract_is_not_trusted(stored):
    with pytest.raises(StoreError, match="contract is damaged"):
        agree(Collection(stored))


def test_a_contract_must_fit_the_storage():
    with pytest.raises(StoreError, match="changed by hand"):
        agree(Collection(CONTRACT.to_dict(), vector=(16, "Cosine")))
