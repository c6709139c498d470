"""Sources: generated problems, files of every kind, and a data set loaded the hub's way from a local folder."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from dereason.errors import DereasonError
from dereason.problems.schema import read_table, validate, write_table
from dereason.problems.sources import FileSource, GymFamily, GymSource, HubSource, fingerprint, load_source

ROWS = [
    {"id": "a", "question": "What is 1 + 1?", "answer": 2, "category": "sum", "level": "easy"},
    {"id": "b", "question": "Which is red?", "answer": "A", "category": "colour", "options": ["rose", "sky"]},
]
SHARED = Path(__file__).parents[3] / "shared" / "data"


def gym(**kw: object) -> GymSource:
    families = [
        GymFamily(family="chain_sum", size=5, args={"max_terms": 3}),
        GymFamily(family="gsm_symbolic", size=3, domain="words"),
    ]
    return GymSource(source="reasoning_gym", families=families).model_copy(update=kw)


def test_gym_problems_are_the_same_everywhere_and_differ_by_seed() -> None:
    table = load_source(gym())
    validate("problem", table, "gym")
    assert table.equals(load_source(gym()))
    assert table["id"].n_unique() == 8
    assert table["domain"].to_list() == ["chain_sum"] * 5 + ["words"] * 3
    assert table["solution"].null_count() == 5, "gsm_symbolic carries worked solutions"
    expression = json.loads(table["metadata"][0])["expression"]
    assert eval(expression) == int(table["answer"][0])
    assert not set(load_source(gym(seed=1))["question"]) & set(table["question"])


LONG: dict[str, object] = {"min_terms": 4, "max_terms": 6, "min_digits": 3, "max_digits": 4}  # hardly two are equal


def long_sums(*sizes: int, seed: int = 1, args: dict[str, object] = LONG) -> set[str]:
    families = [GymFamily(family="chain_sum", size=size, args=args) for size in sizes]
    return set(load_source(GymSource(source="reasoning_gym", families=families, seed=seed))["question"])


def test_equal_entries_and_sources_with_other_seeds_share_no_problem() -> None:
    assert len(long_sums(100, 100)) == 200
    assert len(long_sums(100, 30, 100)) == 230
    train = long_sums(1500)
    assert len(train) == 1500
    assert not train & long_sums(500, seed=2)
    assert not train & long_sums(1500, 500, seed=2)
    assert not train & long_sums(500, 500, seed=0)
    # what is the default counts as said
    small = GymFamily(family="chain_sum", size=100)
    said = GymFamily(family="chain_sum", size=100, args={"min_terms": 2})
    table = load_source(GymSource(source="reasoning_gym", families=[small, said], seed=1))
    assert len(set(table["question"][:100]) & set(table["question"][100:])) < 5


def test_gym_problems_of_a_source_are_those_that_they_have_always_been() -> None:
    """Published accuracies hang on them."""
    import reasoning_gym

    args = [{"max_terms": 6}, {"max_terms": 3}]
    families = [GymFamily(family="chain_sum", size=size, args=a) for size, a in zip((1200, 40), args, strict=True)]
    families.append(GymFamily(family="products", size=20, args=args[0]))  # its arguments are called the same
    table = load_source(GymSource(source="reasoning_gym", families=families, seed=3))
    found = dict(table.select("id", "question").iter_rows())
    assert len(set(found.values())) == len(found), "a generated problem is a problem once"
    for at, (family, size, arguments) in enumerate(
        [("chain_sum", 1000, args[0]), ("chain_sum", 40, args[1]), ("products", 20, args[0])]
    ):
        made = reasoning_gym.create_dataset(family, size=size, seed=3000 + at, **arguments)
        questions = {f"{family}-3-{at}-{i}": entry["question"].strip() for i, entry in enumerate(made)}
        assert questions.keys() & found.keys()
        assert all(found.get(id, question) == question for id, question in questions.items())
        assert set(questions.values()) <= set(found.values())


def test_gym_seeds_are_no_less_than_zero() -> None:
    gym_of = {"source": "reasoning_gym", "families": [{"family": "chain_sum", "size": 1}], "seed": -1}
    with pytest.raises(ValueError, match="greater than or equal to 0"):  # -1 and 1 would be the same
        GymSource.model_validate(gym_of)


def test_gym_mistakes_name_the_family() -> None:
    for family, args in (("no_such_family", {}), ("chain_sum", {"min_terms": 9, "max_terms": 1}), ("gcd", {"x": 1})):
        source = GymSource(source="reasoning_gym", families=[GymFamily(family=family, size=1, args=args)])
        with pytest.raises(DereasonError, match=rf"problems\.families\[0\].*{family}"):
            load_source(source)


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_files_of_every_kind_hold_the_same_problems(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"pool.{kind}"
    rows = [{"options": None, "level": None} | r | {"answer": str(r["answer"])} for r in ROWS]
    if kind == "jsonl":
        path.write_text("\n\n".join(json.dumps(r) for r in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "csv":
        flat = [r | {"options": json.dumps(r["options"]) if r["options"] else ""} for r in rows]
        pl.DataFrame(flat).write_csv(path)
    else:
        pl.DataFrame(rows).write_parquet(path)
    source = FileSource(source="file", path=path.name, fields={"domain": "category"})  # type: ignore[arg-type]
    table = load_source(source, tmp_path)
    assert table.select("id", "answer", "domain").rows() == [("a", "2", "sum"), ("b", "A", "colour")]
    assert table["options"].to_list() == [None, ["rose", "sky"]]
    assert load_source(source.model_copy(update={"limit": 1}), tmp_path).height == 1


def test_rows_without_ids_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join(json.dumps({"question": f"q{i}", "answer": "1"}) for i in range(3)))
    assert load_source(FileSource(source="file", path=path.name), tmp_path)["id"].to_list() == ["1", "2", "3"]


def test_fingerprint_follows_the_bytes_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    source = FileSource(source="file", path=path.name)
    path.write_text(json.dumps(ROWS[0]))
    before = fingerprint(source, tmp_path)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "pool.jsonl").write_text(path.read_text())
    assert fingerprint(source, moved) == before
    path.write_text(json.dumps(ROWS[1]))
    assert fingerprint(source, tmp_path) != before
    with pytest.raises(DereasonError, match="no such problem file"):
        fingerprint(source, tmp_path / "nowhere")


def test_hub_loader_reads_a_data_set_folder(tmp_path: Path) -> None:
    """The hub's own code path on a local folder: downloads do not run here."""
    folder = tmp_path / "pool"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(json.dumps(r | {"answer": str(r["answer"])}) for r in ROWS))
    table = load_source(HubSource(source="hub", name=str(folder), fields={"domain": "category"}))  # type: ignore[arg-type]
    assert table["id"].to_list() == ["a", "b"]
    assert table["domain"].to_list() == ["sum", "colour"]


def test_a_hub_data_set_that_is_not_there_is_one_line() -> None:
    with pytest.raises(DereasonError, match="no-such-owner/no-such-data") as caught:
        load_source(HubSource(source="hub", name="no-such-owner/no-such-data"))
    assert "\n" not in caught.value.line()


def test_a_table_is_checked_when_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(load_source(gym()), path)
    assert read_table("problem", path).height == 8
    pl.read_parquet(path).drop("answer").write_parquet(path)
    with pytest.raises(DereasonError, match="needs the column answer"):
        read_table("problem", path)
    path.write_bytes(b"not parquet")
    with pytest.raises(DereasonError, match="not a readable Parquet file"):
        read_table("problem", path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data sets lie beside the project and are not here")
@pytest.mark.parametrize(
    ("file", "rows"), [("gsm8k/test.jsonl", 1319), ("math/test500.jsonl", 500), ("mmlu_pro/questions.jsonl", 5918)]
)
def test_real_data_sets_load(file: str, rows: int) -> None:
    table = load_source(FileSource(source="file", path=file), SHARED)
    assert table.height == rows
    validate("problem", table, file)
