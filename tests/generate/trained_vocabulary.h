// A small vocabulary, trained on the spot.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "text/vocabulary.h"
#include "text/vocabulary_training.h"

namespace switchyard {

inline const Vocabulary& vocabulary() {
  static const Vocabulary trained =
      [] {
        const auto folder =
            std::filesystem::temp_directory_path() / ("switchyard_generate_test_" + std::to_string(getpid()));
        std::filesystem::create_directories(folder);
        std::ofstream(folder / "text.txt")
            << "The human walks into a bar and orders a drink.\nA man walks into a bar and orders a beer "
               "with a pinch of salt.\nun believ able, comes un re markable 0123456789\n";
        train_vocabulary(
            {.text = {folder / "text.txt"}, .size = 45, .out = folder / "spiece.model", .character_coverage = 1.0});
        auto loaded = Vocabulary::load(folder / "spiece.model");
        std::filesystem::remove_all(folder);
        return loaded;
      }();
  return trained;
}

}  // namespace switchyard
