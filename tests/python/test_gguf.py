"""GGUF: what we write, by llama.cpp's own package; what its package writes, by us; and Hugging Face between the two."""

import gguf
import numpy
import pytest
import safetensors.torch
import torch
import transformers
from conftest import command_tests, program

import switchyard

SIZES = dict(vocab_size=384, d_model=256, d_kv=16, d_ff=512, num_heads=4, num_layers=2, relative_attention_num_buckets=32)
FORMS = {"relu": dict(feed_forward_proj="relu"), "gated": dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)}
IDS = [[5, 9, 17, 33, 8, 1]]


def save(model, folder):
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=FORMS)
def t5(request, tmp_path_factory):
    """Hugging Face's model, its folder, and its GGUF file by `convert`."""
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**SIZES, **FORMS[request.param], decoder_start_token_id=0)).eval()
    if not model.config.tie_word_embeddings:
        model.lm_head.weight = torch.nn.Parameter(0.05 * torch.randn(model.lm_head.weight.shape))
    folder = save(model, tmp_path_factory.mktemp("t5") / "hf")
    program("convert", "--from", folder, "--to", folder.with_suffix(".gguf"))
    return model, folder, folder.with_suffix(".gguf")


def fields(path):
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def tensors(path):
    """By name, as numpy has them: row-major, dequantised."""
    return {each.name: gguf.quants.dequantize(each.data, each.tensor_type).reshape([int(n) for n in reversed(each.shape)])
            for each in gguf.GGUFReader(path).tensors}


def test_llama_cpps_package_reads_what_is_written(t5):
    model, _, path = t5
    read, names = tensors(path), gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5, 2)
    expected = {}
    for name, values in model.state_dict().items():
        if name not in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
            expected[names.get_name(name, try_suffixes=(".weight",))] = values
    if model.config.tie_word_embeddings:
        del expected["output.weight"]
    assert set(read) == set(expected)
    assert all(numpy.array_equal(read[name], expected[name].numpy()) for name in read)
    written, keys = fields(path), gguf.Keys
    assert written[keys.General.ARCHITECTURE] == "t5" and written[keys.General.FILE_TYPE] == 0
    for key, value in [(keys.LLM.EMBEDDING_LENGTH, 256), (keys.LLM.FEED_FORWARD_LENGTH, 512), (keys.LLM.BLOCK_COUNT, 2),
                       (keys.LLM.DECODER_BLOCK_COUNT, 2), (keys.Attention.HEAD_COUNT, 4), (keys.Attention.KEY_LENGTH, 16),
                       (keys.Attention.VALUE_LENGTH, 16), (keys.Attention.REL_BUCKETS_COUNT, 32), (keys.LLM.DECODER_START_TOKEN_ID, 0),
                       (keys.Attention.LAYERNORM_RMS_EPS, pytest.approx(1e-6))]:
        assert written[key.format(arch="t5")] == value, key


def test_there_and_back_is_the_same_model(t5, tmp_path):
    _, folder, path = t5
    program("convert", "--from", path, "--to", tmp_path / "back")
    before, after = (safetensors.torch.load_file(each / "model.safetensors") for each in (folder, tmp_path / "back"))
    assert set(before) == set(after) and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("dtype, kind", [("fp16", "F16"), ("bf16", "BF16")])
def test_small_tensors_stay_f32(t5, tmp_path, dtype, kind):
    _, folder, _ = t5
    program("convert", "--from", folder, "--to", tmp_path / "half.gguf", "--dtype", dtype)
    for tensor in gguf.GGUFReader(tmp_path / "half.gguf").tensors:
        small = "norm" in tensor.name or "rel_b" in tensor.name
        assert tensor.tensor_type.name == ("F32" if small else kind), tensor.name


def random_blocks(kind, shape, draw):
    """A quantised tensor of any values whose scales are small finite numbers."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    bytes = draw.integers(0, 256, (shape[0] * shape[1] // block, size), dtype=numpy.uint8)
    scales = {gguf.GGMLQuantizationType.Q6_K: [208]}.get(kind, [0, 2] if kind.name.endswith("_K") else [0])
    for place in scales:
        bytes[:, place : place + 2] = draw.uniform(-0.02, 0.02, len(bytes)).astype(numpy.float16).view(numpy.uint8).reshape(-1, 2)
    return bytes.reshape(shape[0], -1)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"])
def test_encoders_of_image_models_are_read(tmp_path, kind):
    """A file as llama.cpp's converter and quantiser make it: t5encoder, matrices quantised, the rest f32."""
    torch.manual_seed(1)
    config = transformers.T5Config(**{**SIZES, "d_kv": 64}, **FORMS["gated"])
    model = transformers.T5EncoderModel(config).eval()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 2)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "t5encoder")
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(512)
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_key_length(64)
    writer.add_value_length(64)
    writer.add_layer_norm_eps(1e-6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_relative_attn_buckets_count(32)
    draw, state = numpy.random.default_rng(2), model.state_dict()
    kinds = gguf.GGMLQuantizationType
    for name, values in state.items():
        if name == "encoder.embed_tokens.weight":
            continue
        stored, type = values.numpy(), None
        if values.dim() == 2 and "relative" not in name:
            type = kinds[kind]
            stored = random_blocks(type, values.shape, draw) if type.name.endswith("_K") else gguf.quants.quantize(stored, type)
            values.copy_(torch.from_numpy(gguf.quants.dequantize(stored, type).astype(numpy.float32)))
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), stored, raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    program("convert", "--from", tmp_path / "x.gguf", "--to", tmp_path / "model", "--dtype", "fp32")
    read = safetensors.torch.load_file(tmp_path / "model/model.safetensors")
    for name, values in read.items():
        assert torch.equal(values, state[name]), name
    again = transformers.T5EncoderModel.from_pretrained(tmp_path / "model").eval()
    for name, values in again.state_dict().items():
        assert torch.equal(values, state[name]), name
    with torch.no_grad():
        expected = model(torch.tensor(IDS)).last_hidden_state[0]
    states = switchyard.Model.load(tmp_path / "model").encode(IDS)[0]
    assert (states - expected).abs().max() < 1e-4 * expected.abs().max()
    program("convert", "--from", tmp_path / "model", "--to", tmp_path / "y.gguf")
    assert fields(tmp_path / "y.gguf")["general.architecture"] == "t5encoder"
    refused = command_tests.refused("generate", "--model", tmp_path / "model", "--ids", "--prompt", "5 1")
    assert "no decoder" in refused


def test_vocabulary_goes_along(run, tmp_path):
    """A sparse model with its vocabulary, there and back: experts under llama.cpp's names, an architecture of our own."""
    program("convert", "--from", run, "--to", tmp_path / "run.gguf")
    written = fields(tmp_path / "run.gguf")
    assert written["general.architecture"] == "switchyard" and written["switchyard.expert_count"] == 4
    vocabulary = switchyard.Vocabulary.load(run)
    tokens = written["tokenizer.ggml.tokens"]
    assert len(tokens) == 384 and tokens[:300] == [vocabulary.piece(id) for id in range(300)]
    assert written["tokenizer.ggml.token_type"][:3] == [3, 3, 2] and written["tokenizer.ggml.eos_token_id"] == 1
    shape = tensors(tmp_path / "run.gguf")["enc.blk.1.ffn_up_exps.weight"].shape
    assert shape[0] == 4
    program("convert", "--from", tmp_path / "run.gguf", "--to", tmp_path / "back")
    before, after = switchyard.Model.load(run), switchyard.Model.load(tmp_path / "back")
    assert before.config == after.config
    prompt = "Ada found <extra_id_0> in the harbour of <extra_id_1>."
    assert after.vocabulary.encode(prompt) == before.vocabulary.encode(prompt)
    assert after.generate(prompt, max_tokens=10) == before.generate(prompt, max_tokens=10)
    assert "already holds a model" in command_tests.refused("convert", "--from", run, "--to", tmp_path / "run.gguf")
