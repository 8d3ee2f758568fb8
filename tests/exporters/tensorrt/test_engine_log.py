"""Logs of trtexec as TensorRT 8.4 to 11 write them: figures, sparse layers, failures; and what is no log."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import UserError
from exporters.tensorrt.engine_log import (
    BUILD_LOG,
    GRAPH_DIGEST,
    LAYER_INFO,
    EngineLayer,
    Latency,
    SparseLayers,
    read_build,
    read_build_of,
    read_engine_log,
    read_layer_info,
)

LOGS = Path(__file__).parent / "trtexec"
NEW_LOG, OLD_LOG, FAILED_LOG = (
    (LOGS / name).read_text() for name in ("tensorrt_10.txt", "tensorrt_8.txt", "failed.txt")
)
SPARSE_KERNEL = "sm80_xmma_sparse_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64_stage3_sptensor16x8x32"
LAYERS = {
    "Layers": [
        {"Name": "Reformatting CopyNode", "LayerType": "Reformat", "TacticValue": "0x3e8", "Metadata": ""},
        {
            "Name": "node_MatMul_2_myl0_4",
            "LayerType": "gemm",
            "TacticName": SPARSE_KERNEL,
            "Metadata": "[ONNX Layer: node_MatMul_2]\u001e[ONNX Layer: node_linear_2]",
        },
        {
            "Name": "node_MatMul_3_myl0_5",
            "LayerType": "gemm",
            "TacticName": "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64_stage3_tensor16x8x16",
            "Metadata": "[ONNX Layer: node_MatMul_3]",
        },
    ],
    "Bindings": ["input_ids", "logits"],
}


def test_a_log_of_tensorrt_10_is_read():
    log = read_engine_log(NEW_LOG)
    assert (log.version, log.passed, log.errors) == ("10.14.1", True, ())
    assert (log.gpu, log.sparsity) == ("NVIDIA A100-SXM4-40GB", "enable")
    assert log.eligible == SparseLayers(3, ("node_MatMul_1", "node_MatMul_2 + node_linear_2", "node_Gemm_9"))
    assert log.chosen == SparseLayers(1, ("node_MatMul_2 + node_linear_2",))
    assert log.build_seconds == 30.25
    assert log.throughput_per_second == 640.5
    percentiles = {"90": 1.625, "95": 1.75, "99": 2.5}
    assert log.gpu_latency == Latency(1.25, 2.75, 1.5, 1.375, percentiles)
    assert log.latency == Latency(1.4, 3.0, 1.5, 1.4375, {"99": 2.0})
    assert log.skipped_tactics == 0


def test_a_log_of_tensorrt_8_is_read():
    log = read_engine_log(OLD_LOG)
    assert log.version == "8.4.3"
    assert log.eligible == SparseLayers(3, ("MatMul_11", "MatMul_19 + Add_20", "Gemm_90"))
    assert log.chosen == SparseLayers(0, ())
    assert log.throughput_per_second == 1_250_000.0
    assert log.gpu_latency.min_ms == 1e-05
    assert log.gpu is None


def test_counts_without_names_are_read():
    text = NEW_LOG.replace("[TRT] (Sparsity) Found 3", "[TRT] (Sparsity) Found 39")
    lines = [
        line.split("tactics")[0] + "tactics" if "(Sparsity)" in line else line for line in text.split("\n")
    ]
    log = read_engine_log("\n".join(lines))
    assert (log.eligible, log.chosen) == (SparseLayers(39, ()), SparseLayers(1, ()))


def test_windows_line_ends_change_nothing():
    assert read_engine_log(NEW_LOG.replace("\n", "\r\n")) == read_engine_log(NEW_LOG)


def test_a_build_without_sparsity_or_run_says_so():
    lines = [line for line in NEW_LOG.split("\n") if "Sparsity" not in line and " ms" not in line]
    log = read_engine_log(
        "\n".join(lines).replace(" --sparsity=enable", "").replace("Throughput: 6", "no: 6")
    )
    assert log.passed
    assert (log.eligible, log.chosen, log.sparsity) == (None, None, None)
    assert (log.gpu_latency, log.latency, log.throughput_per_second) == (None, None, None)


def test_a_failed_build_says_so_with_the_cause_first():
    log = read_engine_log(FAILED_LOG)
    assert not log.passed
    assert log.version == "11.2.1"
    assert log.errors[0].startswith("ITensor::getDimensions: Error Code 4")
    assert log.errors[1:] == ("Failed to parse onnx file", "Engine set up failed")
    assert log.gpu_latency is None


def test_many_errors_are_cut():
    noisy = FAILED_LOG.replace(
        "[03/02/2026-12:30:02] [E] Failed",
        "[03/02/2026-12:30:02] [E] again\n" * 50 + "[03/02/2026-12:30:02] [E] Failed",
    )
    errors = read_engine_log(noisy).errors
    assert len(errors) == 10
    assert errors[0].startswith("ITensor")


def test_kernels_that_were_not_tried_are_counted():
    line = (
        "[03/02/2026-10:00:10] [W] [TRT] UNSUPPORTED_STATE: Skipping tactic 7 due to insufficient memory on "
        "requested size of 1073741824 detected for tactic 0x00000000000003e8.\n"
        "[03/02/2026-10:00:10] [E] [TRT] [virtualMemoryBuffer.cpp] Error Code 2: OutOfMemory\n"
    )
    log = read_engine_log(NEW_LOG.replace("[03/02/2026-10:00:12]", line * 2 + "[03/02/2026-10:00:12]", 1))
    assert log.skipped_tactics == 2
    assert log.passed
    assert len(log.errors) == 2


def test_of_several_runs_in_a_file_the_last_counts():
    log = read_engine_log(FAILED_LOG + OLD_LOG + NEW_LOG)
    assert log == read_engine_log(NEW_LOG)
    with pytest.raises(UserError, match="ends before trtexec did"):
        read_engine_log(OLD_LOG + NEW_LOG.rsplit("&&&&", 1)[0])


@pytest.mark.parametrize("text", ["", "hello\n", '{"Layers": []}', "[I] Throughput: 3 qps\n", NEW_LOG[1:]])
def test_what_is_no_log_is_an_error_with_the_way_out(text):
    with pytest.raises(
        UserError, match=r"no log of trtexec; give the trtexec\.log that build_engine\.sh wrote"
    ):
        read_engine_log(text.split("&&&& PASSED")[0])


@settings(max_examples=50)
@given(st.integers(0, NEW_LOG.index("\n&&&& PASSED")))
def test_a_log_cut_anywhere_is_an_error(length):
    with pytest.raises(UserError):
        read_engine_log(NEW_LOG[:length])


@settings(max_examples=30)
@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        assert read_engine_log(NEW_LOG + text).version
    except UserError as error:
        assert str(error)


def test_a_forced_run_is_refused():
    with pytest.raises(UserError, match="overwrites weights: the figures are another model's"):
        read_engine_log(NEW_LOG.replace("--sparsity=enable", "--sparsity=force"))


@pytest.mark.parametrize("figure", ["inf", "nan", "fast"])
def test_figures_that_are_none_are_refused(figure):
    with pytest.raises(UserError, match=f"'{figure}' is no figure"):
        read_engine_log(NEW_LOG.replace("640.5", figure))
    with pytest.raises(UserError, match=f"'{figure}' is no figure"):
        read_engine_log(NEW_LOG.replace("= 1.5", f"= {figure}"))


def test_a_line_of_figures_that_lacks_one_is_refused():
    with pytest.raises(UserError, match="GPU Compute Time lacks its mean"):
        read_engine_log(NEW_LOG.replace("mean = 1.5 ms, ", ""))


@pytest.mark.parametrize(
    ("banner", "version"),
    [("v8601", "8.6.1"), ("v100900", "10.9.0"), ("v110201", "11.2.1"), ("v8.6.1", "8.6.1")],
)
def test_versions(banner, version):
    assert read_engine_log(NEW_LOG.replace("v101401", banner)).version == version


def test_a_banner_without_a_version_has_none():
    assert read_engine_log(NEW_LOG.replace(" [TensorRT v101401]", "")).version is None


def test_layers_name_their_kernels_and_onnx_nodes():
    copy, sparse, dense = read_layer_info(json.dumps(LAYERS))
    assert copy == EngineLayer("Reformatting CopyNode", "", False, ())
    assert (sparse.sparse, sparse.kernel) == (True, SPARSE_KERNEL)
    assert sparse.nodes == ("node_MatMul_2", "node_linear_2")
    assert not dense.sparse
    assert dense.kernel.startswith("sm80_xmma_gemm")


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"Layers": {"a": 1}}', '{"Layers": 3}', "null"])
def test_what_is_no_layer_information_is_an_error(text):
    with pytest.raises(UserError, match=r"no layers of trtexec .* give the layers\.json"):
        read_layer_info(text)


def test_names_alone_are_an_error_with_the_way_out():
    with pytest.raises(UserError, match="--profilingVerbosity=detailed"):
        read_layer_info('{"Layers": ["gemm_1", "gemm_2"]}')


def test_a_build_directory_is_read_as_json(tmp_path):
    (tmp_path / BUILD_LOG).write_text(NEW_LOG)
    assert read_build(tmp_path).sparse_layers is None
    (tmp_path / LAYER_INFO).write_text(json.dumps(LAYERS))
    facts = json.loads(json.dumps(asdict(read_build(tmp_path)), allow_nan=False))
    assert [layer["nodes"] for layer in facts["sparse_layers"]] == [["node_MatMul_2", "node_linear_2"]]
    assert facts["chosen"] == {"count": 1, "names": ["node_MatMul_2 + node_linear_2"]}
    assert facts["gpu_latency"]["percentiles"]["99"] == 2.5


def test_a_build_is_known_by_the_digest_of_its_graph(tmp_path):
    (tmp_path / BUILD_LOG).write_text(NEW_LOG)
    with pytest.raises(UserError, match=r"of an unknown graph, without graph\.sha256; run the build_engine"):
        read_build_of("ab" * 32, tmp_path)
    (tmp_path / GRAPH_DIGEST).write_text(f"{'ab' * 32}\n")
    assert read_build_of("ab" * 32, tmp_path) == read_build(tmp_path)
    with pytest.raises(UserError, match="holds a build of another graph; run the build_engine"):
        read_build_of("cd" * 32, tmp_path)
    (tmp_path / BUILD_LOG).write_text(FAILED_LOG)
    with pytest.raises(UserError, match="no engine was built: ITensor::getDimensions"):
        read_build_of("ab" * 32, tmp_path)


def test_errors_of_a_build_directory_name_the_file(tmp_path):
    with pytest.raises(UserError, match=r"trtexec\.log: no such file; build_engine\.sh writes it"):
        read_build(tmp_path)
    (tmp_path / BUILD_LOG).write_bytes(b"\xff\xfe no log")
    with pytest.raises(UserError, match=rf"^{tmp_path}/trtexec\.log: no log of trtexec"):
        read_build(tmp_path)
    (tmp_path / BUILD_LOG).write_text(NEW_LOG)
    (tmp_path / LAYER_INFO).write_text("{")
    with pytest.raises(UserError, match=rf"^{tmp_path}/layers\.json: no layers of trtexec"):
        read_build(tmp_path)
