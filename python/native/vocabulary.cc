#include "text/vocabulary.h"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "checkpoint/checkpoint_store.h"
#include "native/bindings.h"
#include "native/json_objects.h"
#include "text/vocabulary_training.h"

namespace nb = nanobind;

namespace switchyard {

void bind_vocabulary(nb::module_& module) {
  nb::class_<Vocabulary>(module, "Vocabulary",
                         "Text to ids and back, as T5 has them: SentencePiece's pieces, the sentinels <extra_id_0> ... "
                         "behind them, and what a tokenizer.json adds.")
      .def_static(
          "load", [](const std::filesystem::path& path) { return Vocabulary::load(resolve_vocabulary(path)); },
          nb::arg("path"), "Of a spiece.model, a model directory or a run's folder.",
          nb::call_guard<nb::gil_scoped_release>())
      .def_static(
          "train",
          [](const std::vector<std::filesystem::path>& text, int64_t size, const std::filesystem::path& out) {
            train_vocabulary({.text = text, .size = size, .out = out});
          },
          nb::arg("text"), nb::arg("size"), nb::arg("out"),
          "Makes a vocabulary of `size` pieces from files or folders of text and writes it to `out`, a spiece.model.",
          nb::call_guard<nb::gil_scoped_release>())
      .def("encode", &Vocabulary::encode, nb::arg("text"),
           "Ids of the text, without EOS; a literal <extra_id_N> becomes its sentinel.",
           nb::call_guard<nb::gil_scoped_release>())
      .def(
          "decode", [](const Vocabulary& self, const std::vector<int32_t>& ids) { return to_python(self.decode(ids)); },
          nb::arg("ids"), "The text of ids; pad and EOS are nothing.")
      .def(
          "piece", [](const Vocabulary& self, int32_t id) { return to_python(self.piece(id)); }, nb::arg("id"),
          "How an id is written: \"\xe2\x96\x81the\", \"<extra_id_0>\".")
      .def("sentinel_id", &Vocabulary::sentinel_id, nb::arg("number"), "The id of <extra_id_number>.")
      .def("__len__", &Vocabulary::size)
      .def_prop_ro("num_sentinels", &Vocabulary::num_sentinels)
      .def_prop_ro("pad_id", &Vocabulary::pad_id)
      .def_prop_ro("eos_id", &Vocabulary::eos_id)
      .def_prop_ro("unk_id", &Vocabulary::unk_id);
}

}  // namespace switchyard
