#include "tasks/predictions.h"

#include "base/error.h"
#include "tasks/records.h"

namespace switchyard {

std::vector<std::string> read_predictions(const std::filesystem::path& path, size_t count) {
  std::vector<std::string> predictions;
  LineReader lines(path);
  for (std::string line; lines.next(line);) {
    if (line.empty()) continue;
    const Json json = parse_json(line, lines.place());
    SY_CHECK(json.is_object() && json.contains("prediction") && json.at("prediction").is_string(), lines.place(),
             ": expected an object with the text \"prediction\", got ", line.substr(0, 80));
    predictions.push_back(json.at("prediction").get<std::string>());
  }
  SY_CHECK(predictions.size() == count, path.string(), ": ", predictions.size(), " predictions for ", count,
           " examples; expected one line an example, in the examples' order");
  return predictions;
}

}  // namespace switchyard
