"""tokenizer.json as transformers writes it: added tokens, and vocabularies that have no spiece.model beside it.

Text right behind an added token is left out of the comparison of whole texts: transformers puts a word mark there even
without a space, SentencePiece does not.
"""

import json
import shutil

import pytest
import transformers
from compare import switchyard
from models import save_model
from test_written import documentation

TEXTS = [
    "Return the number of elements.",
    "the <sep> argument",
    "{ x } and { y }",
    "new_words are not new_word here",
    "a {\n b }",
    "the concat cat cats cat",
    "fill <extra_id_0> in <extra_id_1> twice <sep> <sep>",
    "<L> left <R> right <special>",
    "  spaces   around  <sep>   them ",
    "<extra_id_100> <SEP> <sep",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(as published: spiece.model and tokenizer.json; as saved by transformers 5: tokenizer.json alone; the tokenizer)"""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "text.txt").write_text(documentation())
    (folder / "published").mkdir()
    switchyard("vocab", "train", "--text", folder / "text.txt", "--size", 400, "--out", folder / "published/spiece.model")
    tokenizer = transformers.T5Tokenizer.from_pretrained(folder / "published")
    token = transformers.AddedToken
    tokenizer.add_tokens(["<sep>", "{", "}", "new_word", "new_words", token("\n", normalized=False)])
    tokenizer.add_tokens([token("<L>", lstrip=True), token("<R>", rstrip=True), token("cat", single_word=True)])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<special>"]}, replace_extra_special_tokens=False)
    tokenizer.save_pretrained(folder / "saved")
    assert not (folder / "saved/spiece.model").exists()
    shutil.copy(folder / "saved/tokenizer.json", folder / "published")
    return folder / "published", folder / "saved", tokenizer


def encode(vocab, texts):
    answer = switchyard("vocab", "encode", "--vocab", vocab, stdin="".join(text + "\n" for text in texts))
    return [[int(id) for id in line.split()] for line in answer.splitlines()]


def test_added_tokens_have_transformers_ids(folders):
    tokenizer = folders[2]
    lines = [text for text in TEXTS if "\n" not in text]
    for folder in folders[:2]:
        for text, ids in zip(lines, encode(folder, lines), strict=True):
            assert ids == tokenizer(text, add_special_tokens=False).input_ids, text
        added = {token: id for token, id in tokenizer.get_added_vocab().items() if token not in ("<pad>", "</s>", "<unk>", "\n")}
        assert encode(folder, added) == [[id] for id in added.values()]


def test_added_tokens_come_back(folders):
    tokenizer = folders[2]
    for folder in folders[:2]:
        texts = ["the<sep> argument{ x}", "new_word here", "a\n b", "<L> left<R> right<special>"]
        ids = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        lines = "".join(" ".join(map(str, each)) + "\n" for each in ids)
        assert switchyard("vocab", "decode", "--vocab", folder, stdin=lines) == "".join(text + "\n" for text in texts)
        assert [tokenizer.decode(each) for each in ids] == texts


def test_a_converted_model_keeps_them(folders, model_folder, tmp_path):
    for name, folder in zip(("published", "saved"), folders[:2]):
        model = shutil.copytree(model_folder("t5"), tmp_path / name)
        for file in folder.iterdir():
            shutil.copy(file, model)
        switchyard("convert", "--from", model, "--to", tmp_path / f"{name}-copy")
        assert (tmp_path / f"{name}-copy/spiece.model").exists()
        copy = transformers.AutoTokenizer.from_pretrained(tmp_path / f"{name}-copy", local_files_only=True)
        for text in TEXTS:
            assert copy(text).input_ids == folders[2](text).input_ids, text
        assert json.loads((tmp_path / f"{name}-copy/tokenizer.json").read_text())["added_tokens"]


def test_a_folder_without_a_vocabulary_says_so(tmp_path):
    from compare import PROGRAM
    import subprocess

    done = subprocess.run([PROGRAM, "vocab", "encode", "--vocab", tmp_path], capture_output=True, text=True)
    assert done.returncode == 2 and "neither spiece.model nor tokenizer.json" in done.stderr


def test_a_vocabulary_with_sentinels_of_its_own(folders, tmp_path):
    """mT5's spiece.model holds them as its last pieces: nothing goes behind them, in what is read and in what is written."""
    pieces = b""
    for number in range(99, -1, -1):
        piece = b"\x0a" + bytes([len(text := f"\u2581<extra_id_{number}>".encode())]) + text + b"\x15\0\0\0\0\x18\x04"
        pieces += b"\x0a" + bytes([len(piece)]) + piece
    (tmp_path / "mt5.model").write_bytes((folders[0] / "spiece.model").read_bytes() + pieces)
    save_model("mt5_tied", tmp_path / "source", vocab_size=512)
    switchyard("convert", "--from", tmp_path / "source", "--to", tmp_path / "model", "--vocab", tmp_path / "mt5.model")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model", local_files_only=True)
    assert len(theirs) == 500, "400 pieces and the sentinels among them"
    texts = ["fill <extra_id_0> in <extra_id_1>", "the <extra_id_99> end"]
    for vocab in (tmp_path / "mt5.model", tmp_path / "model"):
        for text, ids in zip(texts, encode(vocab, texts), strict=True):
            assert ids == theirs(text, add_special_tokens=False).input_ids, text
            assert max(ids) <= 499
    assert encode(tmp_path / "model", ["<extra_id_0>"]) == [[499]]


def test_a_tokenizer_config_counts_the_sentinels(folders, tmp_path):
    shutil.copy(folders[0] / "spiece.model", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 7}))
    theirs = transformers.T5Tokenizer.from_pretrained(tmp_path)
    assert len(theirs) == 407
    texts = ["fill <extra_id_0> in <extra_id_6>"]
    assert encode(tmp_path, texts) == [theirs(text, add_special_tokens=False).input_ids for text in texts]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"extra_ids": -1}))
    with pytest.raises(AssertionError, match="extra_ids is -1"):
        encode(tmp_path, texts)
