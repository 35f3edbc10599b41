"""GGUF files of ours in llama.cpp itself, where its Python package is installed: ids of a text, encoder states, decoder logits."""

import importlib.util
import shutil

import numpy
import pytest
import torch
import transformers
from conftest import program

import switchyard

if importlib.util.find_spec("llama_cpp"):
    from llama_cpp import llama_cpp as llama
pytestmark = pytest.mark.skipif(not importlib.util.find_spec("llama_cpp"), reason="no llama-cpp-python here: our GGUF files were not run by llama.cpp")

TEXT = "Ada found <extra_id_0> in the harbour of <extra_id_1>."
SIZES = dict(vocab_size=384, d_model=256, d_kv=64, d_ff=512, num_heads=4, num_layers=2, decoder_start_token_id=0)
MODELS = {
    "t5": (transformers.T5ForConditionalGeneration, dict(feed_forward_proj="relu")),
    "flan": (transformers.T5ForConditionalGeneration, dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
    "encoder": (transformers.T5EncoderModel, dict(feed_forward_proj="gated-gelu")),
}


class LlamaModel:
    """One context of one file, in fp32 on one thread."""

    def __init__(self, path, width):
        self.width = width
        self.model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        assert self.model, path
        self.vocabulary = llama.llama_model_get_vocab(self.model)
        options = llama.llama_context_default_params()
        options.embeddings, options.pooling_type, options.n_threads, options.n_threads_batch = True, llama.LLAMA_POOLING_TYPE_NONE, 1, 1
        options.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = llama.llama_init_from_model(self.model, options)
        assert self.context, path

    def __enter__(self):
        return self

    def __exit__(self, *_):
        llama.llama_free(self.context)
        llama.llama_model_free(self.model)

    def tokenize(self, text):
        ids = (llama.llama_token * 200)()
        return ids[:llama.llama_tokenize(self.vocabulary, text.encode(), len(text.encode()), ids, len(ids), True, True)]

    def encode(self, ids):
        """The encoder's states [tokens, d_model]."""
        given = (llama.llama_token * len(ids))(*ids)
        assert llama.llama_encode(self.context, llama.llama_batch_get_one(given, len(ids))) == 0
        return numpy.ctypeslib.as_array(llama.llama_get_embeddings(self.context), (len(ids), self.width)).copy()

    def next_logits(self, ids, vocabulary_size):
        """Of the token behind these, which the decoder reads."""
        llama.llama_set_embeddings(self.context, False)
        given = (llama.llama_token * len(ids))(*ids)
        assert llama.llama_decode(self.context, llama.llama_batch_get_one(given, len(ids))) == 0
        return numpy.ctypeslib.as_array(llama.llama_get_logits(self.context), (vocabulary_size,)).copy()


@pytest.fixture(params=MODELS)
def model(request, workshop, tmp_path):
    """A random model as a directory, and its GGUF file."""
    kind, keys = MODELS[request.param]
    torch.manual_seed(3)
    built = kind(transformers.T5Config(**SIZES, **keys))
    built.save_pretrained(tmp_path / "hf")
    shutil.copy(workshop / "spiece.model", tmp_path / "hf")
    program("convert", "--from", tmp_path / "hf", "--to", tmp_path / "x.gguf")
    return tmp_path


def test_llama_cpp_computes_what_we_compute(model):
    ours = switchyard.Model.load(model / "hf", dtype="fp32")
    ids = [*ours.vocabulary.encode(TEXT), 1]
    with LlamaModel(model / "x.gguf", SIZES["d_model"]) as theirs:
        plain = "Ada found a red lamp, in the  harbour."  # right behind a sentinel llama.cpp puts a space of its own
        assert theirs.tokenize(plain) == [*ours.vocabulary.encode(plain), 1]
        expected = ours.encode(ids).numpy()
        states = theirs.encode(ids)
        difference = numpy.abs(states - expected).max() / numpy.abs(expected).max()
        print(f"encoder states: largest difference {difference:.1e} of the largest value")
        assert difference < 1e-3
        if ours.config["num_decoder_layers"]:
            target = [0, 17, 33, 250]
            expected = ours.forward([ids], [target]).logits[0, -1].numpy()
            logits = theirs.next_logits(target, SIZES["vocab_size"])
            if ours.config["scale_output"]:
                logits *= SIZES["d_model"] ** -0.5  # llama.cpp leaves this out
            difference = numpy.abs(logits - expected).max() / numpy.abs(expected).max()
            print(f"decoder logits: largest difference {difference:.1e} of the largest value")
            assert difference < 1e-3
