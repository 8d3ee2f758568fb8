"""A reranker through pruning, export and validation: rankings and their gates."""

import numpy as np
import pytest

from compressor.data.labels import NUMBER_NAMES
from compressor.data.texts import load_text_data
from compressor.errors import UserError
from compressor.models.classifier import load_classifier
from compressor.models.predictors import TorchPredictor, predict
from compressor.models.ranking import ndcg
from compressor.options import (
    AttackConfig,
    ColumnsConfig,
    ExportConfig,
    PruneConfig,
    RunConfig,
    ValidateConfig,
)
from compressor.pruning.interface import prune_directory
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.validation.gates.compare import compare_reports
from compressor.validation.report.tables import report_table
from compressor.validation.stage import ValidationJob, validate_directories
from exporters.stage import export_directory

COLUMNS = ColumnsConfig(max_length=32)
MEASURED = ValidateConfig(
    task_metric="ndcg",
    batch_sizes=[1],
    sequence_lengths=[16],
    latency_rounds=3,
    footprint=False,
    gates=["task_score_drop <= 0.1", "rank_correlation >= 0.8"],
)
CANDIDATES = 6


def context(output):
    return Context(
        output=output,
        columns=COLUMNS,
        run=RunConfig(device="cpu", threads=2),
        progress=SilentProgress(),
    )


@pytest.fixture(scope="module")
def queries(numbered_pairs, tmp_path_factory):
    """Queries with six candidates; the longer one is, the more relevant it is, as the model has learnt."""
    lines = (numbered_pairs / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    folder = tmp_path_factory.mktemp("queries")
    lengths = [1, 3, 5, 7, 9, 2]
    written = ["query\tpassage\tlabel"]
    for place, (query, _, _) in enumerate(rows[:20]):
        words = " ".join(row[1] for row in rows[place : place + 12]).split()
        for length in lengths:
            written.append(f"{query} {place}\t{' '.join(words[:length])}\t{max(length - 4, 0)}")
    path = folder / "queries.tsv"
    path.write_text("\n".join(written) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def artifact_dir(regression_dir, numbered_pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reranker")
    config = PruneConfig(sparsity=0.3, algorithm="magnitude")
    train, data = (str(numbered_pairs / f"{name}.tsv") for name in ("train", "test"))
    prune_directory(str(regression_dir), train, config, context(folder / "pruned"))
    export_directory(str(folder / "pruned"), data, ExportConfig(), context(folder / "artifact"))
    return folder / "artifact"


def validated(dense, artifact, data, output, config=MEASURED):
    job = ValidationJob(str(dense), artifact, None, str(data), config, AttackConfig())
    return validate_directories(job, context(output))


@pytest.fixture(scope="module")
def report(regression_dir, artifact_dir, queries, tmp_path_factory):
    output = tmp_path_factory.mktemp("validation") / "report"
    return validated(regression_dir, artifact_dir, queries, output), output


def test_a_report_has_the_mean_over_queries(report, regression_dir, queries):
    found, _ = report
    data = load_text_data(str(queries), COLUMNS, "test", label_names=NUMBER_NAMES)
    assert len(data) == 20 * CANDIDATES
    answers = predict(TorchPredictor(load_classifier(str(regression_dir))), data, 32)[:, 0]
    by_query = zip(np.split(answers, 20), np.split(np.array(data.numbers), 20), strict=True)
    expected = np.mean([ndcg(own, relevance) for own, relevance in by_query])
    dense, artifact = found.variants.dense, found.variants.artifact
    assert dense.task_score == pytest.approx(expected, abs=1e-6)
    # It has learnt what is relevant here.
    assert dense.task_score > 0.9
    assert dense.accuracy is None
    against = artifact.answers_against_dense
    assert against.task_score_drop == pytest.approx(dense.task_score - artifact.task_score)
    ends = against.rank_correlation_interval
    assert ends.low <= against.rank_correlation <= ends.high
    assert [gate.status for gate in found.gates] == ["pass", "pass"]


def test_forms_of_the_report_show_rankings(report):
    found, output = report
    shown = f"{found.variants.artifact.answers_against_dense.rank_correlation:.3f}"
    for name in ("report.html", "report.md"):
        text = (output / name).read_text()
        assert "NDCG@10" in text
        assert "Rank correlation with dense" in text
        assert shown in text
    assert report_table(found) is not None
    assert "rank_correlation" in {figure.metric for figure in compare_reports(found, found).figures}


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        ("numbered", {}, "task_metric ndcg: .* relevance is not negative"),
        (
            "queries",
            {"task_metric": "pearson"},
            "gate 'rank_correlation >= 0.8': is of rerankers, and the task metric is pearson; set "
            "--task-metric to mrr or ndcg",
        ),
    ],
)
def test_what_is_not_of_rankings_is_refused(
    regression_dir, artifact_dir, queries, numbered_pairs, tmp_path, data, changes, message
):
    path = queries if data == "queries" else numbered_pairs / "test.tsv"
    config = MEASURED.model_copy(update=changes)
    with pytest.raises(UserError, match=message):
        validated(regression_dir, artifact_dir, path, tmp_path / "report", config)
    assert not (tmp_path / "report").exists()
