"""Checkpoints: only whole BERT classifiers in safetensors are loaded, and come back bit for bit."""

import contextlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from compressor.errors import UserError
from compressor.models.classifier import (
    encoder_linears,
    encoder_weights,
    load_classifier,
    load_for_finetuning,
    save_classifier,
    sparsity_of,
    weights_bytes,
    weights_fingerprint,
)
from compressor.models.structure import linear_at
from compressor.system.files import sha256_of


def edit_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_round_trip_keeps_weights_labels_and_tokens(small_classifier, tmp_path):
    save_classifier(small_classifier, tmp_path)
    again = load_classifier(str(tmp_path))
    before, after = small_classifier.model.state_dict(), again.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again.label_names == small_classifier.label_names == ["fresh", "rotten"]
    text = "A fine film, größe!"
    assert again.tokenizer(text).input_ids == small_classifier.tokenizer(text).input_ids
    assert not again.model.training


def test_saving_writes_safetensors_and_no_pickle(small_classifier, tmp_path):
    save_classifier(small_classifier, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert "model.safetensors" in names
    assert not any(name.endswith((".bin", ".pt", ".ckpt")) for name in names)


def test_eager_attention_gives_the_same_logits(small_classifier_dir):
    tokens = {"input_ids": torch.tensor([[101, 2023, 3185, 102]])}
    with torch.no_grad():
        one, other = (
            load_classifier(str(small_classifier_dir), attention=kind).model(**tokens).logits
            for kind in ("sdpa", "eager")
        )
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_encoder_linears_are_six_a_layer_in_order(small_classifier):
    names = list(encoder_linears(small_classifier.model))
    kinds = [
        "attention.self.query", "attention.self.key", "attention.self.value",
        "attention.output.dense", "intermediate.dense", "output.dense",
    ]  # fmt: skip
    assert names == [f"bert.encoder.layer.{i}.{kind}" for i in range(2) for kind in kinds]
    assert list(encoder_weights(small_classifier.model)) == names


def test_linear_at_refuses_what_is_no_linear_layer(small_classifier):
    assert linear_at(small_classifier.model, "classifier").out_features == 2
    with pytest.raises(TypeError, match="is a LayerNorm"):
        linear_at(small_classifier.model, "bert.embeddings.LayerNorm")


def test_sparsity_is_the_share_of_zeros_over_all():
    weights = {"a": torch.tensor([[0.0, 1.0]]), "b": torch.tensor([[0.0, -0.0, 2.0, 3.0, 4.0, 5.0]])}
    assert sparsity_of(weights) == 3 / 8


def test_weights_are_counted_and_fingerprinted(small_classifier, small_classifier_dir, tmp_path):
    path = small_classifier_dir / "model.safetensors"
    assert 0 <= path.stat().st_size - weights_bytes(small_classifier) < 50_000
    assert weights_fingerprint(str(small_classifier_dir)) == sha256_of(path)
    assert weights_fingerprint("some/model") is None
    assert weights_fingerprint(str(tmp_path / "none")) is None


def test_weights_from_the_hub_are_fingerprinted_in_its_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--some--model"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    assert weights_fingerprint("some/model") is None
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert weights_fingerprint("some/model") == sha256_of(snapshot / "model.safetensors")


# refusals ---------------------------------------------------------------------------------------


def test_a_pickle_is_refused_with_a_way_to_convert_it(writable_copy):
    (writable_copy / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1)}, writable_copy / "pytorch_model.bin")
    for load in (load_classifier, lambda source: load_for_finetuning(source, ["a", "b"], 0)):
        with pytest.raises(UserError, match=r"pytorch_model\.bin: is a pickle.*save_pretrained"):
            load(str(writable_copy))


def test_a_directory_without_weights_is_refused(writable_copy):
    (writable_copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        load_classifier(str(writable_copy))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(writable_copy, value):
    name = "bert.encoder.layer.1.output.dense.weight"
    edit_weights(writable_copy, lambda weights: weights[name].view(-1)[7:8].fill_(value))
    with pytest.raises(UserError, match=rf"weight {name} holds NaN or infinity"):
        load_classifier(str(writable_copy))


def test_another_kind_of_model_is_refused(writable_copy):
    edit_config(writable_copy, model_type="xlnet", architectures=["XLNetForSequenceClassification"])
    with pytest.raises(UserError, match=r"XLNetForSequenceClassification|xlnet"):
        load_classifier(str(writable_copy))
    with pytest.raises(UserError, match="is a xlnet model; only BERT, RoBERTa"):
        load_for_finetuning(str(writable_copy), ["a", "b"], 0)


def test_an_unknown_model_type_is_refused(writable_copy):
    edit_config(writable_copy, model_type="nonsense")
    with pytest.raises(UserError, match=r"is a nonsense model; only BERT, .* models can be used"):
        load_classifier(str(writable_copy))


def test_an_encoder_is_refused_with_the_way_to_fine_tune_it(small_encoder_dir):
    with pytest.raises(
        UserError, match="is BertModel, not a BertForSequenceClassification; fine-tune it first"
    ):
        load_classifier(str(small_encoder_dir))


def test_a_head_that_is_missing_is_named(writable_copy):
    edit_weights(writable_copy, lambda weights: weights.pop("classifier.weight"))
    with pytest.raises(UserError, match=r"1 weights are missing or of another shape \(classifier\.weight\)"):
        load_classifier(str(writable_copy))


@pytest.mark.parametrize(
    "values",
    [{"num_hidden_layers": 3}, {"intermediate_size": 100}, {"vocab_size": 99}, {"id2label": {"0": "a"}}],
)
def test_a_config_of_another_size_is_refused(writable_copy, values):
    edit_config(writable_copy, **values)
    # The tokenizer and label2id tell of a wrong size before the weights do.
    expected = r"missing or of another shape|cannot be loaded|the tokenizer has|label2id: says"
    with pytest.raises(UserError, match=expected):
        load_classifier(str(writable_copy))


def test_weights_for_more_layers_than_the_config_has_are_refused(writable_copy):
    edit_config(writable_copy, num_hidden_layers=1)
    with pytest.raises(UserError):
        load_classifier(str(writable_copy))


@pytest.mark.parametrize("size", [0, 5, 1000, 10**6])
def test_truncated_weights_are_refused(writable_copy, size):
    with (writable_copy / "model.safetensors").open("r+b") as stream:
        stream.truncate(size)
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load_classifier(str(writable_copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_broken_config_is_refused(writable_copy, content):
    (writable_copy / "config.json").write_text(content)
    with pytest.raises(UserError):
        load_classifier(str(writable_copy))


def test_a_missing_tokenizer_is_refused(writable_copy):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (writable_copy / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_classifier(str(writable_copy))


@pytest.mark.parametrize(
    "source", ["/no/such/model", "./none", "~/none", "a/b/c", ":", "a b", "-", "x--y", "a..b", ""]
)
def test_what_is_neither_a_directory_nor_an_id_is_named_without_asking_the_hub(source):
    with pytest.raises(UserError, match=rf"^'?{source}'?: no such model directory"):
        load_classifier(source)


def test_a_directory_without_config_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        load_classifier(str(tmp_path))


def test_a_hub_id_without_network_is_a_user_error():
    with pytest.raises(UserError, match="no such directory, and no model could be loaded") as caught:
        load_classifier("some/model")
    assert "\n" not in str(caught.value)


def test_the_checkpoints_own_code_never_runs(writable_copy, tmp_path):
    trace = tmp_path / "ran"
    (writable_copy / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass C: pass\n")
    edit_config(writable_copy, auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.C"})
    with contextlib.suppress(UserError):
        load_classifier(str(writable_copy))
    assert not trace.exists()


# new heads --------------------------------------------------------------------------------------


def test_an_encoder_gets_a_head_for_the_labels(small_encoder_dir):
    classifier = load_for_finetuning(str(small_encoder_dir), ["a", "b", "c"], seed=0)
    assert classifier.label_names == ["a", "b", "c"]
    assert classifier.model.classifier.weight.shape[0] == 3
    encoder = load_file(small_encoder_dir / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    assert torch.equal(classifier.model.state_dict()[f"bert.{name}"], encoder[name])


def test_a_new_head_is_drawn_with_the_seed_and_leaves_the_global_one(small_encoder_dir):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (
        load_for_finetuning(str(small_encoder_dir), ["a", "b"], seed).model.classifier.weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.rand(3), expected)


def test_a_head_of_the_right_size_is_kept_and_of_another_is_drawn(small_classifier, small_classifier_dir):
    kept = load_for_finetuning(str(small_classifier_dir), ["x", "y"], seed=0)
    assert torch.equal(kept.model.classifier.weight, small_classifier.model.classifier.weight)
    assert kept.label_names == ["x", "y"]
    drawn = load_for_finetuning(str(small_classifier_dir), ["x", "y", "z"], seed=0)
    assert drawn.model.classifier.weight.shape[0] == 3


def test_an_incomplete_encoder_gets_no_head(small_encoder_dir, tmp_path):
    folder = shutil.copytree(small_encoder_dir, tmp_path / "copy")
    edit_weights(folder, lambda weights: weights.pop("encoder.layer.0.output.dense.weight"))
    with pytest.raises(UserError, match=r"encoder\.layer\.0\.output\.dense\.weight"):
        load_for_finetuning(str(folder), ["a", "b"], 0)
