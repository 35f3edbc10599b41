// One self-contained HTML page of what a model's experts take: a table a layer, and text coloured by expert.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

struct RoutingPage {
  struct Token {
    std::string piece;    // "▁the"
    int64_t expert = -1;  // -1: no expert took it
    double gate = 0.0;
  };
  struct Expert {
    double load = 0.0, mean_gate = 0.0;
    std::vector<std::string> typical;  // pieces, the most telling first
  };
  struct Layer {
    std::string name;
    std::string summary;  // one line
    std::vector<Expert> experts;
    std::vector<std::vector<Token>> texts;
  };
  std::string title;
  std::vector<std::string> semantics;  // the routing in words
  std::vector<Layer> layers;
};

std::string make_routing_page(const RoutingPage& page);

}  // namespace switchyard
