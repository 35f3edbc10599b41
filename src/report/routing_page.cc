#include "report/routing_page.h"

#include <cmath>

#include "base/error.h"
#include "report/html.h"
#include "report/page_assets.h"

namespace switchyard {
namespace {

constexpr const char* kRoutingStyle = R"css(
.text { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 14px; line-height: 2; margin: 10px 0; }
.text span { border-radius: 3px; padding: 1px 0; color: #1d2024; white-space: pre-wrap; }
.text span.none { color: var(--quiet); text-decoration: underline dotted; }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 8px; vertical-align: -1px; }
.bar { display: inline-block; height: 9px; background: var(--c0); border-radius: 2px; margin-right: 8px; }
td code { background: var(--page); border: 1px solid var(--rule); border-radius: 4px; padding: 0 4px; margin-right: 4px; font-size: 12.5px; white-space: pre; }
details.layer { margin: 14px 0; } details.layer > summary { font-weight: 600; cursor: pointer; padding: 4px 0; }
)css";

// Hues a golden angle apart: neighbours differ however many experts there are.
std::string colour(int64_t expert) {
  const double hue = std::fmod(static_cast<double>(expert) * 137.508 + 210.0, 360.0);
  const int lightness = 76 + static_cast<int>(expert / 8 % 3) * 5;
  return join("hsl(", std::lround(hue), " 70% ", lightness, "%)");
}

std::string percent(double share) { return format_number(100.0 * share, 3) + " %"; }

// SentencePiece's word mark as the space that it stands for.
std::string visible(const std::string& piece) {
  const std::string mark = "▁";
  std::string text = piece;
  for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at))
    text.replace(at, mark.size(), " ");
  return escape_html(text);
}

std::string expert_table(const RoutingPage::Layer& layer) {
  double largest = 1e-9;
  for (const auto& expert : layer.experts) largest = std::max(largest, expert.load);
  std::string html = "<div class='scroll left'><table><tr><th>Expert<th>Load<th>Mean gate<th>Typical tokens</tr>\n";
  for (size_t n = 0; n < layer.experts.size(); ++n) {
    const auto& expert = layer.experts[n];
    html += join("<tr><td><span class=swatch style='background:", colour(static_cast<int64_t>(n)), "'></span>", n,
                 "</td><td style='white-space:nowrap'><span class=bar style='width:",
                 std::lround(90.0 * expert.load / largest), "px'></span>", percent(expert.load), "</td><td>",
                 expert.load > 0 ? format_number(expert.mean_gate, 3) : "", "</td><td>");
    for (const auto& piece : expert.typical) html += "<code>" + visible(piece) + "</code>";
    html += "</td></tr>\n";
  }
  return html + "</table></div>\n";
}

std::string coloured_text(const std::vector<RoutingPage::Token>& tokens) {
  std::string html = "<div class=text>";
  for (const auto& token : tokens) {
    if (token.expert < 0)
      html += "<span class=none title='no expert took it'>" + visible(token.piece) + "</span>";
    else
      html += join("<span style='background:", colour(token.expert), "' title='expert ", token.expert, ", gate ",
                   format_number(token.gate, 3), "'>", visible(token.piece), "</span>");
  }
  return html + "</div>\n";
}

}  // namespace

std::string make_routing_page(const RoutingPage& page) {
  std::string html = std::string("<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport ") +
                     "content='width=device-width, initial-scale=1'>\n<title>" + escape_html(page.title) +
                     " - experts</title>\n<style>" + kPageStyle + kRoutingStyle + "</style></head><body>\n<h1>" +
                     escape_html(page.title) +
                     "</h1>\n<p class=quiet>Which tokens each expert takes. A token's colour "
                     "is the expert that took it with the largest gate; underlined tokens found no slot.</p>\n"
                     "<details><summary>How this model routes</summary><ul>";
  for (const auto& words : page.semantics) html += "<li>" + escape_html(words) + "</li>\n";
  html += "</ul></details>\n";
  for (size_t n = 0; n < page.layers.size(); ++n) {
    const auto& layer = page.layers[n];
    html += join("<details class=layer", n == 0 ? " open" : "", "><summary>", escape_html(layer.name),
                 "</summary>\n<p class=quiet>", escape_html(layer.summary), "</p>\n");
    html += expert_table(layer);
    for (const auto& text : layer.texts) html += coloured_text(text);
    html += "</details>\n";
  }
  return html + "</body></html>\n";
}

}  // namespace switchyard
