"""Resources of attacks: each is found, told and checked byte by byte."""

import json
import shutil

import pytest
import torch

from cli import execute
from compressor.attacks import inventory as module
from compressor.attacks.inventory import build, examine, inventory, is_broken
from compressor.attacks.resources import attack_resources
from compressor.options import ATTACKS, AttackConfig, ResourcesConfig
from compressor.system.assets import encoder_directory
from compressor.system.console import SilentProgress


@pytest.fixture
def own(tmp_path, word_vectors, wordnet, masked_language_model):
    """A resource of one's own in every place."""
    encoder = shutil.copytree(encoder_directory(), tmp_path / "encoder")
    return ResourcesConfig(
        word_vectors=str(word_vectors),
        sentence_encoder=str(encoder),
        wordnet=str(wordnet),
        masked_language_model=str(masked_language_model),
    )


def findings(config):
    return {finding.resource.name: finding for finding in map(examine, inventory(config))}


def test_every_need_of_an_attack_is_in_the_inventory():
    resources = {resource.name: resource for resource in inventory(ResourcesConfig())}
    needs = {need for attack in ATTACKS.values() for need in attack.needs}
    assert {name.replace(" ", "_") for name in resources} == needs | {"stop_words"}
    for name, resource in resources.items():
        if name != "stop words":
            need = name.replace(" ", "_")
            assert set(resource.attacks) == {attack for attack, own in ATTACKS.items() if need in own.needs}
        assert resource.source
        assert resource.licence
        assert resource.instead_of


def test_what_packages_hold_is_ready_and_pinned():
    found = findings(ResourcesConfig())
    for name in ("stop words", "sentence encoder", "synonyms", "part of speech"):
        assert found[name].state == "ready", name
        assert len(found[name].sha256) == 64
    for name in ("stop words", "sentence encoder", "synonyms"):
        assert found[name].resource.pinned == found[name].sha256


def test_resources_of_ones_own_are_ready(own):
    found = findings(own)
    assert {finding.state for finding in found.values()} == {"ready"}
    assert not any(is_broken(finding, own) for finding in found.values())
    assert found["word vectors"].resource.source == own.word_vectors


@pytest.mark.parametrize("name", ["word_vectors", "sentence_encoder", "wordnet", "masked_language_model"])
def test_one_of_ones_own_that_is_not_there_is_broken(own, name, tmp_path):
    config = own.model_copy(update={name: str(tmp_path / "nothing")})
    if name == "sentence_encoder":
        config = config.model_copy(update={"word_vectors": own.word_vectors})
    broken = [f.resource.name for f in findings(config).values() if is_broken(f, config)]
    expected = {"wordnet": "synonyms"}.get(name, name.replace("_", " "))
    assert broken == [expected]


def test_the_masked_language_model_of_the_hub_need_not_be_there():
    config = ResourcesConfig()
    finding = findings(config)["masked language model"]
    assert not is_broken(finding, config)


def test_a_changed_byte_is_damage(monkeypatch, tmp_path):
    changed = tmp_path / "stopwords.txt"
    changed.write_text(module.STOPWORDS.read_text() + "more\n")
    monkeypatch.setattr(module, "STOPWORDS", changed)
    finding = findings(ResourcesConfig())["stop words"]
    assert finding.state == "damaged"
    assert is_broken(finding, ResourcesConfig())


def test_vectors_that_were_built_are_checked_against_what_was_built(own, monkeypatch, tmp_path):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    words = ["good", "great", "film", "movie"] + [
        f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(60)
    ]
    monkeypatch.setattr(module, "encoded_words", lambda tokenizer: words)
    monkeypatch.setattr("compressor.lexicon.word_vectors.encoded_words", lambda tokenizer: words)
    config = own.model_copy(update={"word_vectors": None})
    assert findings(config)["word vectors"].state == "not built"
    build(config, SilentProgress())
    built = findings(config)["word vectors"]
    assert built.state == "ready"
    attack_resources(
        AttackConfig(**config.model_dump(), attack="textfooler"), torch.device("cpu"), SilentProgress()
    )
    assert findings(config)["word vectors"] == built
    content = bytearray(built.resource.file.read_bytes())
    content[-30] ^= 1
    built.resource.file.write_bytes(content)
    assert findings(config)["word vectors"].state == "damaged"


def test_verify_exits_with_1_and_names_what_is_broken(own, tmp_path, capsys):
    options = ["--wordnet", str(tmp_path / "nothing"), "--word-vectors", own.word_vectors, "--json"]
    assert execute(["resources", "verify", *options]) == 1
    out, err = capsys.readouterr()
    assert "synonyms is missing" in err
    rows = {row["name"]: row for row in json.loads(out)["resources"]}
    assert rows["synonyms"]["state"] == "missing"
    assert execute(["resources", "list", *options]) == 0
