#include "plan/picture.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <set>
#include <vector>

#include "base/error.h"
#include "model/parameters.h"

namespace switchyard {
namespace {

constexpr double kSquare = 40, kGap = 5, kBlockGap = 14, kBlockTitle = 16;  // pixels
constexpr double kPanelGap = 44, kMargin = 24, kHead = 86;
constexpr int64_t kSquaresAcross = 8;

constexpr const char* kStyle = R"css(<style>
svg { --page: #ffffff; --text: #22262b; --quiet: #6b7178; --rule: #b9bec4; --block: #f3f4f5; --light: 52%; }
@media (prefers-color-scheme: dark) { svg { --page: #16181b; --text: #e4e6e8; --quiet: #9aa1a9; --rule: #565c64; --block: #22262b; --light: 60%; } }
text { fill: var(--quiet); font: 11px system-ui, "Segoe UI", Roboto, Arial, sans-serif; font-variant-numeric: tabular-nums; }
.head { fill: var(--text); font-size: 17px; font-weight: 650; } .title { fill: var(--text); font-size: 13.5px; font-weight: 650; }
.page { fill: var(--page); } .block { fill: var(--block); } .whole { fill: var(--page); stroke: var(--rule); }
.rank { font-size: 9px; text-anchor: middle; } .tint { opacity: .2; } .cut { stroke: var(--rule); stroke-width: .6; }
</style>)css";

std::string fixed(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  return text;
}

struct Axis {
  Slice part;
  int64_t size = 0;
};

// What one device has of a panel's whole.
struct Part {
  Axis rows, columns;
  int64_t color = 0;   // equal parts have equal colours, from 0
  double shade = 0.0;  // -1 to 1: parts of one colour apart
};

struct Panel {
  const char* id;
  std::string title, whole = "", share = "";
  std::vector<Part> parts = {};  // [rank]
  int64_t lines = 0;             // the whole is drawn with so many columns, if they are few
};

std::string count(int64_t number, const char* one, const char* many) {
  return join(number, " ", number == 1 ? one : many);
}

// The first matrix that tensor ranks would cut, of a feed-forward network if there is a dense one.
std::optional<ParameterSpec> dense_weight(const std::vector<ParameterSpec>& specs) {
  for (const auto role : {Role::kFeedForward, Role::kAttention})
    for (const auto& spec : specs)
      if (spec.role == role && !spec.is_expert() && spec.tensor_axis == 0) return spec;
  return std::nullopt;
}

std::optional<ParameterSpec> expert_weight(const std::vector<ParameterSpec>& specs) {
  for (const auto role : {Role::kFeedForward, Role::kAttention})
    for (const auto& spec : specs)
      if (spec.role == role && spec.is_expert() && spec.tensor_axis == 1) return spec;
  return std::nullopt;
}

double shade_of(const Layout& layout, int64_t tensor) {
  return layout.tensor == 1 ? 0.0 : 2.0 * static_cast<double>(tensor) / static_cast<double>(layout.tensor - 1) - 1.0;
}

Panel dense_panel(const ParameterSpec& spec, const Layout& layout, int64_t num_drawn) {
  Panel panel{.id = "dense", .title = "A dense weight"};
  panel.whole = join(spec.name, " [", spec.shape[0], ", ", spec.shape[1], "]");
  panel.share = layout.tensor == 1 ? join("whole on all ", layout.num_ranks(), " devices")
                                   : join("in ", layout.tensor, " parts, each on ",
                                          count(layout.data * layout.expert, "device", "devices"));
  for (int64_t rank = 0; rank < num_drawn; ++rank) {
    const auto shard = shards_of({spec}, layout, rank).front();
    panel.parts.push_back(
        {{shard.axes[0], spec.shape[0]}, {shard.axes[1], spec.shape[1]}, place_of(layout, rank).tensor});
  }
  return panel;
}

Panel expert_panel(const ParameterSpec& spec, const Layout& layout, int64_t num_drawn) {
  Panel panel{.id = "experts", .title = "The experts of a layer"};
  const int64_t num_experts = spec.shape[0];
  panel.whole = join(count(num_experts, "expert", "experts"), " of [", spec.shape[1], ", ", spec.shape[2], "]");
  const int64_t groups = std::min(num_experts, layout.expert);
  panel.share = groups == 1 ? std::string("all on every data rank")
                            : join("in ", groups, " groups of ", (num_experts + groups - 1) / groups);
  if (layout.tensor > 1) panel.share += join(", each expert in ", layout.tensor, " parts");
  panel.lines = num_experts;
  for (int64_t rank = 0; rank < num_drawn; ++rank) {
    const auto shard = shards_of({spec}, layout, rank).front();
    const auto place = place_of(layout, rank);
    panel.parts.push_back({{shard.axes[1], spec.shape[1]},
                           {shard.axes[0], num_experts},
                           place.expert * groups / layout.expert,
                           shade_of(layout, place.tensor)});
  }
  return panel;
}

// Runs of whole routing groups, as batch ranks take them.
Panel batch_panel(const Workload& workload, const Layout& layout, int64_t num_drawn) {
  Panel panel{.id = "batch", .title = "The batch of a step"};
  const auto share = batch_share(workload, layout);
  const int64_t ranks = layout.data * layout.expert;
  panel.whole = join(count(workload.batch_size, "sequence", "sequences"), " of ", workload.encoder_length, " + ",
                     workload.decoder_length, " tokens");
  panel.share = join("in ", count(ranks, "run", "runs"), " of up to ", share.sequences,
                     layout.tensor > 1 ? join(", each on ", layout.tensor, " devices") : "");
  for (int64_t rank = 0; rank < num_drawn; ++rank) {
    const int64_t batch_rank = rank / layout.tensor;
    const auto groups = even_slice(share.num_groups, ranks, batch_rank);
    panel.parts.push_back({{{std::min(workload.batch_size, groups.begin * share.unit),
                             std::min(workload.batch_size, groups.end * share.unit)},
                            workload.batch_size},
                           {{0, 1}, 1},
                           batch_rank});
  }
  return panel;
}

// Where devices stand in every panel: blocks of one data rank, rows of whole tensor groups in them.
struct Grid {
  int64_t num_drawn, in_block, across, blocks_across;

  explicit Grid(const Layout& layout) {
    num_drawn = std::min(layout.num_ranks(), kMostDrawnDevices);
    in_block = layout.expert * layout.tensor;
    const int64_t groups = std::max<int64_t>(1, kSquaresAcross / layout.tensor);
    across = std::min(in_block, layout.tensor > kSquaresAcross ? kSquaresAcross : groups * layout.tensor);
    blocks_across = std::clamp<int64_t>(kSquaresAcross / across, 1, (num_drawn + in_block - 1) / in_block);
  }
  int64_t num_blocks() const { return (num_drawn + in_block - 1) / in_block; }
  int64_t rows_in_block() const { return (std::min(in_block, num_drawn) + across - 1) / across; }
  double block_width() const { return static_cast<double>(across) * (kSquare + kGap) + kGap; }
  double block_height() const { return kBlockTitle + static_cast<double>(rows_in_block()) * (kSquare + kGap + 11) + 2; }
  double width() const { return static_cast<double>(blocks_across) * (block_width() + kBlockGap) - kBlockGap; }
  double height() const {
    const int64_t rows = (num_blocks() + blocks_across - 1) / blocks_across;
    return static_cast<double>(rows) * (block_height() + kBlockGap) - kBlockGap;
  }
  double block_x(int64_t block) const {
    return static_cast<double>(block % blocks_across) * (block_width() + kBlockGap);
  }
  double block_y(int64_t block) const {
    const int64_t row = block / blocks_across;
    return static_cast<double>(row) * (block_height() + kBlockGap);
  }
  double x(int64_t rank) const {
    return block_x(rank / in_block) + kGap + static_cast<double>(rank % in_block % across) * (kSquare + kGap);
  }
  double y(int64_t rank) const {
    const int64_t row = rank % in_block / across;
    return block_y(rank / in_block) + kBlockTitle + static_cast<double>(row) * (kSquare + kGap + 11);
  }
};

std::string rectangle(const char* kind, double x, double y, double width, double height, const std::string& more = "") {
  return join("<rect class=\"", kind, "\" x=\"", fixed(x), "\" y=\"", fixed(y), "\" width=\"", fixed(width),
              "\" height=\"", fixed(height), "\"", more);
}

std::string draw_part(const Panel& panel, const Part& part, int64_t num_colors, int64_t rank, double left, double top) {
  const auto at = [](const Axis& axis, int64_t value) {
    return kSquare * static_cast<double>(value) / static_cast<double>(std::max<int64_t>(1, axis.size));
  };
  // The whole square is faintly tinted in the part's colour, so that small parts of many devices can be seen.
  const double hue = 210 + 360.0 * static_cast<double>(part.color) / static_cast<double>(num_colors);
  const double x = at(part.columns, part.columns.part.begin), y = at(part.rows, part.rows.part.begin);
  const std::string color = join("fill:hsl(", fixed(hue), " 62% calc(var(--light) + ", fixed(9 * part.shade), "%))");
  const std::string about = join(" style=\"", color, "\" data-panel=\"", panel.id, "\" data-rank=\"", rank,
                                 "\" data-rows=\"", part.rows.part.begin, " ", part.rows.part.end, "\" data-columns=\"",
                                 part.columns.part.begin, " ", part.columns.part.end, "\"><title>device ", rank, ": ",
                                 panel.id == std::string("batch")     ? "sequences "
                                 : panel.id == std::string("experts") ? "of each expert rows "
                                                                      : "rows ",
                                 part.rows.part.begin, " to ", part.rows.part.end - 1,
                                 panel.id == std::string("experts")
                                     ? join(", experts ", part.columns.part.begin, " to ", part.columns.part.end - 1)
                                     : "",
                                 "</title></rect>");
  return rectangle("tint", left, top, kSquare, kSquare, join(" style=\"", color, "\"/>")) +
         rectangle("part", left + x, top + y, at(part.columns, part.columns.part.end) - x,
                   at(part.rows, part.rows.part.end) - y, about);
}

std::string text(const char* kind, double x, double y, const std::string& words) {
  return join("<text class=\"", kind, "\" x=\"", fixed(x), "\" y=\"", fixed(y), "\">", words, "</text>");
}

std::string draw_panel(const Panel& panel, const Grid& grid, const Layout& layout, double left) {
  std::string svg = text("title", left, kHead, panel.title) + text("", left, kHead + 17, panel.whole) +
                    text("", left, kHead + 32, panel.share) + "\n";
  const double top = kHead + 46;
  for (int64_t block = 0; block < grid.num_blocks(); ++block)
    svg += rectangle("block", left + grid.block_x(block), top + grid.block_y(block), grid.block_width(),
                     grid.block_height(), " rx=\"6\"/>") +
           text("", left + grid.block_x(block) + kGap, top + grid.block_y(block) + 12, join("data ", block)) + "\n";
  int64_t num_colors = 1;  // of what is drawn
  for (const auto& part : panel.parts) num_colors = std::max(num_colors, part.color + 1);
  for (int64_t rank = 0; rank < grid.num_drawn; ++rank) {
    const double x = left + grid.x(rank), y = top + grid.y(rank);
    svg += rectangle("whole", x, y, kSquare, kSquare, "/>");
    const auto& part = panel.parts[static_cast<size_t>(rank)];
    if (part.rows.part.size() > 0 && part.columns.part.size() > 0)
      svg += draw_part(panel, part, num_colors, rank, x, y);
    for (int64_t line = 1; line < panel.lines && panel.lines <= 16; ++line) {
      const auto at = fixed(x + kSquare * static_cast<double>(line) / static_cast<double>(panel.lines));
      svg += join("<line class=\"cut\" x1=\"", at, "\" x2=\"", at, "\" y1=\"", fixed(y), "\" y2=\"", fixed(y + kSquare),
                  "\"/>");
    }
    const auto place = place_of(layout, rank);
    std::string name = std::to_string(rank);
    if (layout.expert > 1) name += join(" e", place.expert);
    if (layout.tensor > 1) name += join(" t", place.tensor);
    svg += text("rank", x + kSquare / 2, y + kSquare + 10, name) + "\n";
  }
  return svg;
}

}  // namespace

std::string draw_partitioning(const Workload& workload, const Layout& layout) {
  const auto specs = parameter_specs(workload.model);
  const Grid grid(layout);
  std::vector<Panel> panels;
  if (const auto spec = dense_weight(specs)) panels.push_back(dense_panel(*spec, layout, grid.num_drawn));
  if (const auto spec = expert_weight(specs)) panels.push_back(expert_panel(*spec, layout, grid.num_drawn));
  panels.push_back(batch_panel(workload, layout, grid.num_drawn));

  const double panel_width = std::max(grid.width(), 250.0);
  const double width = 2 * kMargin + static_cast<double>(panels.size()) * (panel_width + kPanelGap) - kPanelGap;
  const double height = kHead + 46 + grid.height() + kMargin;
  std::string svg = join("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", fixed(width), " ", fixed(height),
                         "\" width=\"", fixed(width), "\" height=\"", fixed(height), "\">\n<title>Data ", layout.data,
                         " x expert ", layout.expert, " x tensor ", layout.tensor, "</title>\n", kStyle, "\n");
  svg += rectangle("page", 0, 0, width, height, "/>") + "\n";
  svg += text("head", kMargin, 34,
              join(count(layout.num_ranks(), "device", "devices"), ": data ", layout.data, " x expert ", layout.expert,
                   " x tensor ", layout.tensor));
  svg += text("", kMargin, 54,
              join("A square is a device, its outline the whole, its filling what the device has. Equal colours are "
                   "equal parts.",
                   grid.num_drawn < layout.num_ranks() ? join(" The first ", grid.num_drawn, " devices.") : "")) +
         "\n";
  for (size_t n = 0; n < panels.size(); ++n)
    svg += draw_panel(panels[n], grid, layout, kMargin + static_cast<double>(n) * (panel_width + kPanelGap));
  return svg + "</svg>\n";
}

}  // namespace switchyard
