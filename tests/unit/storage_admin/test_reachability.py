"""Which artifacts may go: examples, and random roots against a slow, obvious account of what must stay."""

import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from building import files_below, make_old, put, put_checkpoint, put_line, put_weights, reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict

from zsbir.base.artifact import MANIFEST, Artifact, exists
from zsbir.base.config import Config
from zsbir.base.errors import RunError
from zsbir.base.layout import below_root
from zsbir.base.storage import join, open_folder, split_file
from zsbir.storage_admin import housekeeping
from zsbir.storage_admin.checking import verifiable_uris, verify
from zsbir.storage_admin.housekeeping import RootState, remove_unneeded, unneeded
from zsbir.storage_admin.reachability import Criteria, path_below
from zsbir.storage_admin.roots import KINDS, survey
from zsbir.teacher import TeacherConfig

ALL = frozenset(KINDS)


def decide(root, kinds=ALL, *, hours=0.0, keep=(), registered=()):
    before_s = time.time() - 3600 * hours + (1 if hours == 0 else 0)
    criteria = Criteria(frozenset(kinds), before_s, frozenset(path_below(uri, root) for uri in keep))
    return unneeded(RootState(survey(root), frozenset(registered)), criteria)


def goes(root, kinds=ALL, **more):
    return {join(root, *waste.path.split("/")) for waste in decide(root, kinds, **more).goes}


def test_a_whole_lineage_is_removed_results_before_their_inputs(root):
    line = put_line(root)
    plan = decide(root).goes
    assert len(plan) == 6, "a run's checkpoints go with it"
    order = [join(root, *waste.path.split("/")) for waste in plan]
    for later, earlier in (
        (line.run, line.index),
        (line.run, line.report),
        (line.knowledge, line.run),
        (line.dataset, line.knowledge),
    ):
        assert order.index(earlier.uri) < order.index(later.uri)
    assert order.index(line.weights) > order.index(line.knowledge.uri)
    assert sum(waste.size for waste in plan) == sum(map(len, files_below(root).values()))


def test_what_something_that_stays_was_made_from_stays(root):
    line = put_line(root)
    assert goes(root, {"report", "dataset", "weights", "knowledge", "run"}) == {line.report.uri}
    assert goes(root, {"dataset", "run"}) == set()
    assert goes(root, {"index", "report"}) == {line.index.uri, line.report.uri}
    assert goes(root, {"index", "report", "run"}) == {line.index.uri, line.report.uri, line.run.uri}


def test_checkpoints_of_finished_runs_go_where_they_are_asked_for(root):
    line = put_line(root)
    assert goes(root, {"checkpoint"}) == {f"{line.run.uri}/checkpoints/step-000001"}
    unfinished = put_checkpoint(root, "toy-9")
    assert unfinished.uri not in goes(root)


def test_a_checkpoint_that_stays_keeps_the_run_it_lies_in(root):
    """Removing the run would take it along."""
    run = put(root, "run")
    checkpoint = put_checkpoint(root, run.folder_name)
    assert goes(root) == {run.uri}
    assert goes(root, keep=[checkpoint.uri]) == set()
    put(root, "report", inputs={"checkpoint": checkpoint})
    assert goes(root, ALL - {"report"}) == set()


def test_a_checkpoint_that_has_just_been_written_keeps_its_run(tmp_path):
    run = put(tmp_path, "run")
    make_old(tmp_path)
    checkpoint = put_checkpoint(tmp_path, run.folder_name)
    assert goes(str(tmp_path), hours=24) == set()
    make_old(checkpoint.uri)
    assert goes(str(tmp_path), hours=24) == {run.uri}


def test_a_run_goes_before_what_its_checkpoints_name(root):
    dataset, run = put(root, "dataset"), put(root, "run", "z")
    put_checkpoint(root, run.folder_name, inputs={"dataset": dataset})
    assert [waste.kind for waste in decide(root).goes] == ["run", "dataset"]


def test_what_is_to_be_kept_keeps_what_it_needs(root):
    line, other = put_line(root), put_line(root, "other")
    left = goes(root, keep=[line.knowledge.uri])
    assert {line.knowledge.uri, line.dataset.uri, line.weights} & left == set()
    assert {line.run.uri, other.dataset.uri, other.weights} < left


def test_what_a_registry_names_keeps_what_it_needs(root):
    line, other = put_line(root), put_line(root, "other")
    left = goes(root, registered=[line.run.folder_name])
    assert {line.run.uri, line.knowledge.uri, line.dataset.uri, line.weights} & left == set()
    assert {line.index.uri, line.report.uri, other.run.uri} < left
    by_address = goes(root, registered=[below_root(line.index.uri)])
    assert line.index.uri not in by_address


def test_young_artifacts_stay(tmp_path):
    line = put_line(tmp_path)
    root = str(tmp_path)
    assert not goes(root, hours=24)
    make_old(tmp_path)
    assert len(goes(root, hours=24)) == 6
    young = put(root, "report", "young", inputs={"run": line.run})
    assert line.run.uri not in goes(root, hours=24)
    assert decide(root, hours=24).stays[below_root(young.uri)] == "changed recently"


def test_a_fresh_writer_blocks_the_kinds_its_stage_reads(tmp_path):
    line = put_line(tmp_path)
    root = str(tmp_path)
    make_old(tmp_path)
    open_folder(root).create("knowledge/new/0123/.writing-1", b"")
    left = goes(root, hours=24)
    assert {line.dataset.uri, line.weights} & left == set()
    assert {line.knowledge.uri, line.run.uri, line.report.uri, line.index.uri} == left
    assert "may read it" in decide(root, hours=24).stays[below_root(line.dataset.uri)]


def test_an_unfinished_run_keeps_what_it_may_go_on_with(root):
    line = put_line(root)
    checkpoint = put_checkpoint(root, "toy-9")
    left = goes(root)
    assert left == {line.report.uri, line.index.uri, line.run.uri}, "its checkpoint does not say what it was trained on"
    open_folder(checkpoint.uri).clear()
    put_checkpoint(root, "toy-9", "step-000002", inputs={"dataset": line.dataset})
    left = goes(root)
    assert line.dataset.uri not in left
    assert {line.knowledge.uri, line.weights} < left, "this one does"


def test_a_run_in_use_stays_and_its_lock_is_removed_with_it_later(tmp_path):
    root, run = str(tmp_path), put(tmp_path, "run")
    script = "import sys\nfrom zsbir.base.lease import alone\nwith alone(sys.argv[1]):\n    print(flush=True)\n    sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script, run.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        criteria = Criteria(ALL, time.time() + 1)
        assert not remove_unneeded(survey(root), criteria, lambda before: RootState(survey(root)))
    assert len(remove_unneeded(survey(root), criteria, lambda before: RootState(survey(root)))) == 1
    assert not run.path.exists()


def test_a_run_that_mlflow_lacks_something_of_stays(root):
    line = put_line(root)
    line.run.folder.create(".undelivered", b"")
    assert goes(root) == {line.report.uri, line.index.uri, f"{line.run.uri}/checkpoints/step-000001"}


def test_pretrained_weights_stay_while_their_bytes_are_named(root):
    line = put_line(root)
    sha256 = line.weights.rpartition("/")[2].removesuffix(".safetensors")
    source = put(root, "pretrained", facts={"weights_sha256": sha256})
    assert source.uri not in goes(root, {"pretrained"})
    assert source.uri in goes(root)
    other = put(root, "pretrained", "other")
    assert goes(root, {"pretrained"}) == {other.uri}
    put(root, "knowledge", "third", config=TeacherConfig(weights=f"{other.uri}/weights.safetensors"))
    assert not goes(root, {"pretrained"})


def test_a_damaged_manifest_anywhere_stops_all(root):
    put_line(root)
    open_folder(root).create("reports/bad/manifest.json", b"{")
    with pytest.raises(RunError, match=r"not all manifests can be read \(1\).*reports/bad"):
        decide(root)


def test_names_of_another_root_and_digests_count_as_names(root):
    dataset = put(root, "dataset", "one")
    moved = put(root, "dataset", "two")
    put(root, "report", inputs={"dataset": {"uri": f"s3://elsewhere/a/{below_root(dataset.uri)}", "digest": "?"}})
    put(root, "run", inputs={"deep": {"list": [{"uri": "/old/place", "digest": moved.digest}]}})
    assert not goes(root, {"dataset"})


def test_removal_takes_all_and_leaves_what_stays_whole(root):
    line, other = put_line(root), put_line(root, "other")
    criteria = Criteria(ALL - {"checkpoint"}, time.time() + 1, frozenset({below_root(other.index.uri)}))
    removed = remove_unneeded(survey(root), criteria, lambda before: RootState(survey(root, known=before)))
    assert len(removed) == 7
    assert not any(exists(gone.uri) for gone in (line.dataset, line.knowledge, line.run, line.report, line.index, other.report))
    assert set(verifiable_uris(survey(root))) == {
        other.dataset.uri,
        other.knowledge.uri,
        other.run.uri,
        other.index.uri,
        other.weights,
        f"{other.run.uri}/checkpoints/step-000001",
    }
    assert not any(verdict.problems for verdict in verify(verifiable_uris(survey(root))))


def test_what_is_named_in_the_last_moment_stays(root, monkeypatch):
    monkeypatch.setattr(housekeeping, "SURVEY_VALID_S", 0.0)
    line = put_line(root)
    late = []

    def current_state(before):
        if not exists(line.index.uri) and not late:
            late.append(put(root, "report", "late", inputs={"run": line.run}))
        return RootState(survey(root, known=before))

    removed = remove_unneeded(survey(root), Criteria(ALL - {"checkpoint"}, time.time() + 1), current_state)
    assert {waste.kind for waste in removed} == {"index", "report"}
    assert exists(late[0].uri)
    assert exists(line.run.uri)
    assert not any(verdict.problems for verdict in verify(verifiable_uris(survey(root))))


def test_a_registration_in_the_last_moment_is_seen(root, monkeypatch):
    monkeypatch.setattr(housekeeping, "SURVEY_VALID_S", 0.0)
    line = put_line(root)
    looks = []

    def current_state(before):
        looks.append(1)
        return RootState(survey(root, known=before), frozenset({line.run.folder_name} if len(looks) > 2 else ()))

    remove_unneeded(survey(root), Criteria(ALL, time.time() + 1), current_state)
    assert all(exists(kept.uri) for kept in (line.run, line.knowledge, line.dataset))
    assert not exists(line.index.uri)


def test_an_artifact_that_changes_meanwhile_stays_and_so_does_what_it_names(root, capsys):
    line = put_line(root)

    def current_state(before):
        return RootState(survey(root, known=before))

    removing = housekeeping._remove_whole

    def touching(where, waste):
        if waste.kind == "report":
            open_folder(join(where, waste.path)).create("note.txt", b"mine")
        return removing(where, waste)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(housekeeping, "_remove_whole", touching)
        remove_unneeded(survey(root), Criteria(ALL, time.time() + 1), current_state)
    assert exists(line.report.uri)
    assert "has changed meanwhile" in capsys.readouterr().err
    if exists(line.run.uri):
        assert exists(line.dataset.uri)


def test_a_removal_that_breaks_off_leaves_no_run_that_looks_unfinished(root, monkeypatch):
    """Manifests go first, the checkpoints' too: what is left is debris."""
    run = put(root, "run")
    put_checkpoint(root, run.folder_name)
    monkeypatch.setattr(housekeeping, "remove", lambda uri: (_ for _ in ()).throw(RunError("broken off")))
    with pytest.raises(RunError, match="broken off"):
        remove_unneeded(survey(root), Criteria(ALL, time.time() + 1), lambda before: RootState(survey(root, known=before)))
    left = survey(root)
    assert left.units
    assert all(unit.is_unfinished for unit in left.units.values())
    wastes = housekeeping.debris(left, [], time.time() + 1)
    assert len(housekeeping.remove_debris(root, wastes, time.time() + 1)) == 2
    assert not files_below(root)


@dataclass
class Node:
    """One artifact of a random root. names: (other node, how it is named). how: see `named`."""

    kind: str
    names: list[tuple[int, str]] = field(default_factory=list)
    run: int = -1
    is_old: bool = True
    is_kept: bool = False
    is_registered: bool = False
    is_undelivered: bool = False
    uri: str = ""


HOWS = ("here", "elsewhere", "digest", "nested", "config")


@st.composite
def roots(draw, times=True):
    """Random artifacts that name earlier ones in all ways there are; checkpoints of finished and of unfinished runs."""
    kinds = st.sampled_from(["dataset", "knowledge", "run", "report", "index", "pretrained", "weights", "checkpoint", "orphan"])
    nodes = [Node(kind) for kind in draw(st.lists(kinds, min_size=1, max_size=9))]
    runs: list[int] = []
    for number, node in enumerate(nodes):
        if node.kind == "run":
            runs.append(number)
        if node.kind in ("checkpoint", "orphan"):
            node.run = draw(st.sampled_from(runs)) if runs and node.kind == "checkpoint" else -1
            node.kind = "checkpoint"
        if node.kind != "weights":
            earlier = st.integers(0, number - 1) if number else st.nothing()
            node.names = draw(st.lists(st.tuples(earlier, st.sampled_from(HOWS)), max_size=3)) if number else []
        node.is_old = draw(st.sampled_from([True, True, True, False])) if times else True
        node.is_kept = draw(st.sampled_from([False] * 7 + [True]))
        node.is_registered = node.kind == "run" and draw(st.sampled_from([False, False, True]))
        node.is_undelivered = node.kind == "run" and draw(st.sampled_from([False] * 4 + [True]))
    return nodes, draw(st.frozensets(st.sampled_from(KINDS), min_size=1))


def build(root, nodes):
    for number, node in enumerate(nodes):
        inputs, config = {}, {}
        for folder, (other, how) in enumerate(node.names):
            address = nodes[other].uri
            digest = reference(address)["digest"] if nodes[other].kind == "weights" else Artifact(address).digest
            if how == "config":
                config[f"c{folder}"] = address
            else:
                inputs[f"i{folder}"] = {
                    "here": {"uri": address, "digest": "?"},
                    "elsewhere": {"uri": f"s3://other/{below_root(address)}", "digest": "?"},
                    "digest": {"uri": "/moved/away", "digest": digest},
                    "nested": [{"deep": {"uri": address}}],
                }[how]
        name = f"n{number}"
        if node.kind == "weights":
            node.uri = put_weights(root, uuid.uuid4().bytes)
        elif node.kind == "checkpoint":
            run = nodes[node.run].uri.rpartition("/")[2] if node.run >= 0 else f"unfinished-{number}"
            # Like all checkpoints so far it does not say what it was trained on, unless it names something.
            node.uri = put_checkpoint(root, run, f"step-{number:06d}", inputs=inputs, config=Plain(**config)).uri
        else:
            node.uri = put(root, node.kind, name, inputs=inputs, config=Plain(**config)).uri
        if node.is_undelivered:
            open_folder(node.uri).create(".undelivered", b"")


class Plain(Config):
    """A configuration of any fields."""

    model_config = ConfigDict(extra="allow")


def obviously_staying(nodes, kinds):
    """Apply the rules one after the other, over and over, until nothing more has to stay."""
    stay = set()
    unfinished = [node for node in nodes if node.kind == "checkpoint" and node.run < 0]
    silent = [node for node in unfinished if not any(how != "config" for _, how in node.names)]

    def must_stay(number):
        node = nodes[number]
        if node.kind not in kinds and node.kind != "checkpoint":
            return True
        if node.is_kept or node.is_registered or node.is_undelivered or not node.is_old:
            return True
        if node.kind == "checkpoint" and node.run < 0:
            return True
        if silent and node.kind in ("dataset", "knowledge", "weights", "pretrained"):
            return True
        for other, holder in enumerate(nodes):
            if holder.run == number and (not holder.is_old or other in stay):
                return True
            if other in stay and any(named == number for named, _ in holder.names):
                return True
        return node.kind == "checkpoint" and "checkpoint" not in kinds and node.run in stay

    while True:
        more = {number for number in range(len(nodes)) if number not in stay and must_stay(number)}
        if not more:
            return stay
        stay |= more


def is_there(uri):
    if uri.endswith(".safetensors"):
        folder, name = split_file(uri)
        return folder.size(name) is not None
    return exists(uri)


def check(root, nodes, kinds, hours, late=None):
    """Remove what nothing needs, and look at what is left."""
    before_s = time.time() - 3600 * hours + (1 if hours == 0 else 0)
    keep = frozenset(path_below(node.uri, root) for node in nodes if node.is_kept)
    registered = frozenset(node.uri.rpartition("/")[2] for node in nodes if node.is_registered)
    removed = remove_unneeded(
        survey(root), Criteria(kinds, before_s, keep), lambda before: RootState(survey(root, known=before), registered)
    )
    if late is None:
        there = {number for number, node in enumerate(nodes) if is_there(node.uri)}
        assert there == obviously_staying(nodes, kinds)
    for node in nodes:
        if node.is_kept or node.is_registered:
            assert is_there(node.uri)
        if is_there(node.uri):
            assert all(is_there(nodes[other].uri) for other, _ in node.names)
    assert not any(verdict.problems for verdict in verify(verifiable_uris(survey(root))))
    return removed


SLOW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@given(roots())
@SLOW
def test_what_is_needed_is_never_removed_and_what_is_not_is(drawn):
    nodes, kinds = drawn
    with tempfile.TemporaryDirectory() as folder:
        root = str(Path(folder).resolve())
        build(root, nodes)
        make_old(root)
        for node in nodes:
            if not node.is_old:
                file = Path(node.uri)
                (file if file.is_file() else file / MANIFEST).touch()
        check(root, nodes, kinds, hours=24)


@pytest.mark.slow
@given(drawn=roots(times=False))
@settings(SLOW, max_examples=8)
def test_nor_is_it_in_object_storage(drawn, new_root):
    nodes, kinds = drawn
    root = new_root("moto")
    build(root, nodes)
    check(root, nodes, kinds, hours=0)


@pytest.mark.slow
@given(roots(times=False), st.randoms(use_true_random=False))
@settings(SLOW, max_examples=60)
def test_nor_what_others_come_to_need_meanwhile(drawn, random):
    """After each removal somebody finishes a report that names what is still there."""
    nodes, kinds = drawn
    late = []
    removing = housekeeping._remove_whole
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        root = str(Path(folder).resolve())
        build(root, nodes)

        def then_named(where, waste):
            done = removing(where, waste)
            there = [node for node in nodes if is_there(node.uri)]
            if there and len(late) < 3:
                named = random.choice(there)
                inputs = {"it": {"uri": named.uri, "digest": "?"}}
                late.append((put(root, "report", f"late{len(late)}", inputs=inputs, digest=uuid.uuid4().hex * 2), named))
            return done

        patch.setattr(housekeeping, "_remove_whole", then_named)
        patch.setattr(housekeeping, "SURVEY_VALID_S", 0.0)
        check(root, nodes, kinds, hours=0, late=late)
        for report, named in late:
            if exists(report.uri):
                assert is_there(named.uri)
