#include "report/page.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/error.h"
#include "report/chart.h"
#include "report/heat_map.h"
#include "report/html.h"
#include "report/ladder_section.h"
#include "report/page_assets.h"
#include "report/parts_section.h"
#include "report/scaling_section.h"
#include "report/study_section.h"
#include "report/summary.h"

namespace switchyard {
namespace {

const std::string kLossLabel = "nats per token";

using Points = std::vector<std::pair<double, double>>;

Points points_of(const LogSeries& series, bool over_time) {
  Points points;
  for (const auto& point : series) points.emplace_back(over_time ? point.seconds : point.step, point.value);
  return points;
}

Chart new_chart(const std::string& title, const std::string& y_label, bool over_time) {
  return {.title = title,
          .x_label = over_time ? "training time" : "step",
          .y_label = y_label,
          .lines = {},
          .x_is_seconds = over_time};
}

// One line a run; noisy series are drawn faint under their moving mean.
std::string run_chart(const std::vector<RunLog>& runs, const std::string& key, const std::string& title,
                      const std::string& y_label, bool over_time, bool smoothed) {
  Chart chart = new_chart(title, y_label, over_time);
  if (y_label == kLossLabel) chart.unscaled_start = 0.05;
  for (size_t n = 0; n < runs.size(); ++n) {
    const auto points = points_of(runs[n].scalar(key), over_time);
    const size_t window = points.size() / 40;
    if (smoothed && window > 1) chart.lines.push_back({.name = "", .color = n, .points = points, .is_faint = true});
    chart.lines.push_back({.name = runs[n].name,
                           .color = n,
                           .points = smoothed ? smooth(points, window) : points,
                           .has_markers = key == "eval_loss"});
  }
  return draw_chart(chart);
}

// One line a sparse layer.
std::string layer_chart(const RunLog& run, const std::string& title, const std::string& y_label, bool is_fraction,
                        const std::function<LogSeries(const LayerLog&)>& series) {
  Chart chart = new_chart(title, y_label, /*over_time=*/false);
  chart.y_is_fraction = is_fraction;
  for (size_t n = 0; n < run.layers.size(); ++n) {
    const auto points = points_of(series(run.layers[n]), false);
    chart.lines.push_back({.name = run.layers[n].name, .color = n, .points = smooth(points, points.size() / 40)});
  }
  return draw_chart(chart);
}

// Mean over a run's sparse layers, at the steps of its first layer.
LogSeries mean_over_layers(const RunLog& run) {
  LogSeries mean = run.layers.empty() ? LogSeries{} : run.layers.front().number("dropped_fraction");
  for (size_t n = 0; n < mean.size(); ++n) {
    double sum = 0;
    size_t count = 0;
    for (const auto& layer : run.layers) {
      if (n >= layer.number("dropped_fraction").size()) continue;
      sum += layer.number("dropped_fraction")[n].value;
      ++count;
    }
    mean[n].value = sum / static_cast<double>(count);
  }
  return mean;
}

std::string dropped_chart(const std::vector<RunLog>& runs) {
  Chart chart = new_chart("Dropped tokens, mean over sparse layers", "share of tokens", false);
  chart.y_is_fraction = true;
  for (size_t n = 0; n < runs.size(); ++n) {
    const auto points = points_of(mean_over_layers(runs[n]), false);
    chart.lines.push_back({.name = runs[n].name, .color = n, .points = smooth(points, points.size() / 40)});
  }
  return draw_chart(chart);
}

std::string section(const std::string& title, const std::string& intro, const std::string& figures) {
  if (figures.empty()) return "";
  return "<h2>" + title + "</h2>\n" + (intro.empty() ? "" : "<p class=quiet>" + intro + "</p>\n") +
         "<div class=grid-2>\n" + figures + "</div>\n";
}

std::string config_text(const RunLog& run, const char* section_name, const char* key) {
  if (!run.config.contains(section_name) || !run.config.at(section_name).contains(key)) return "";
  const Json& value = run.config.at(section_name).at(key);
  return value.is_string()         ? value.get<std::string>()
         : value.is_number_float() ? format_number(value.get<double>())
                                   : value.dump();
}

std::string cell(const std::optional<double>& value, const std::function<std::string(double)>& text,
                 bool is_best = false) {
  return join(is_best ? "<td class=best>" : "<td>", value ? text(*value) : "", "</td>");
}
std::string loss_text(double loss) { return format_number(loss, 5); }
std::string percent_text(double fraction) { return format_number(100 * fraction, 3) + "%"; }
std::string plain_text(double value) { return format_number(value, 4); }

std::string model_text(const RunLog& run) {
  std::string text = config_text(run, "model", "preset");
  if (text.empty()) text = config_text(run, "model", "init");
  const std::string experts = config_text(run, "model", "num_experts");
  return text + (experts.empty() || experts == "0" ? "" : (text.empty() ? "" : ", ") + experts + " experts");
}

std::string name_cell(const RunLog& run, size_t index) {
  return join("<td><i class='key line-", index % kNumLineColors, "'></i>", escape_html(run.name), "</td>");
}

std::string runs_table(const std::vector<RunLog>& runs) {
  std::string rows;
  std::vector<RunSummary> summaries;
  for (const auto& run : runs) summaries.push_back(summarize(run));
  const auto best = std::min_element(summaries.begin(), summaries.end(), [](const RunSummary& a, const RunSummary& b) {
    return a.best_eval_loss.value_or(INFINITY) < b.best_eval_loss.value_or(INFINITY);
  });
  for (size_t n = 0; n < runs.size(); ++n) {
    const auto& summary = summaries[n];
    const bool is_best =
        runs.size() > 1 && summary.best_eval_loss.has_value() && summary.best_eval_loss == best->best_eval_loss;
    rows += "<tr>" + name_cell(runs[n], n) + "<td>" + escape_html(model_text(runs[n])) + "</td>" +
            cell(summary.steps, plain_text) + cell(summary.seconds, format_seconds) +
            cell(summary.tokens_per_second, plain_text) + cell(summary.train_loss, loss_text) +
            cell(summary.final_eval_loss, loss_text) + cell(summary.best_eval_loss, loss_text, is_best) +
            cell(summary.dropped_fraction, percent_text) + "</tr>\n";
  }
  return "<div class=scroll><table><tr><th>Run<th>Model<th>Steps<th>Training time<th>Tokens/s<th>Training "
         "loss<th>Held-out loss<th>Best "
         "held-out<th>Dropped</tr>\n" +
         rows + "</table></div>\n";
}

std::string equal_terms_table(const std::vector<RunLog>& runs) {
  const auto terms = compare_on_equal_terms(runs);
  if (!terms) return "";
  const auto lowest = [&](double EqualTerms::Row::*column) {
    double least = INFINITY;
    for (const auto& row : terms->rows) least = std::min(least, row.*column);
    return least;
  };
  std::string rows;
  for (size_t n = 0; n < runs.size(); ++n) {
    rows += "<tr>" + name_cell(runs[n], n);
    for (const auto& [column, text] : {std::pair{&EqualTerms::Row::loss_at_step, &loss_text},
                                       {&EqualTerms::Row::loss_at_seconds, &loss_text},
                                       {&EqualTerms::Row::steps_to_loss, &plain_text},
                                       {&EqualTerms::Row::seconds_to_loss, &format_seconds}})
      rows += cell(terms->rows[n].*column, text, terms->rows[n].*column == lowest(column));
    rows += "</tr>\n";
  }
  return "<h3>On equal terms</h3>\n<div class=scroll><table><tr><th>Run<th>Held-out loss at step " +
         format_number(terms->step, 6) + "<th>Held-out loss after " + format_seconds(terms->seconds) +
         "<th>Steps to loss " + loss_text(terms->loss) + "<th>Time to loss " + loss_text(terms->loss) + "</tr>\n" +
         rows + "</table></div>\n";
}

std::string routing_section(const RunLog& run) {
  if (run.layers.empty()) return "";
  const auto evenness = [](const LayerLog& layer) {
    LogSeries series = layer.number("expert_load_entropy");
    const size_t num_experts = layer.load.loads.empty() ? 0 : layer.load.loads.front().size();
    for (auto& point : series)
      point.value = num_experts > 1 ? std::exp(point.value) / static_cast<double>(num_experts) : 0.0;
    return num_experts > 1 ? series : LogSeries{};
  };
  std::string figures = layer_chart(run, "Dropped tokens by layer", "share of tokens", true,
                                    [](const LayerLog& layer) { return layer.number("dropped_fraction"); });
  figures +=
      layer_chart(run, "Experts in use by layer (exp of the load's entropy)", "share of experts", true, evenness);
  const auto add = [&](const char* key, const char* title, const char* unit, bool is_fraction) {
    if (run.layers.front().number(key).empty()) return;  // logs of earlier versions
    figures += layer_chart(run, title, unit, is_fraction, [key](const LayerLog& layer) { return layer.number(key); });
  };
  add("router_entropy", "Router entropy by layer", "nats", false);
  add("router_confidence", "Router confidence by layer (mean of the largest probability)", "probability", true);
  add("layer_load_balance_loss", "Balance loss by layer (1 is even)", "loss", false);
  add("expert_utilization", "Slots in use by layer", "share of slots", true);
  std::string maps;
  for (const auto& layer : run.layers) maps += draw_heat_map("Expert load, " + layer.name, layer.load);
  if (!maps.empty())
    maps = "<p class=quiet style='margin-top:16px'>Tokens that chose each expert, over the even share.</p>" +
           draw_heat_map_key() + "<div class=grid-2>\n" + maps + "</div>\n";
  return "<h3>" + escape_html(run.name) + "</h3>\n<div class=grid-2>\n" + figures + "</div>\n" + maps;
}

// <extra_id_N> as a visible blank.
std::string show_blanks(const std::string& prompt) {
  std::string html;
  for (size_t at = 0; at < prompt.size();) {
    const size_t begin = prompt.find("<extra_id_", at),
                 end = begin == std::string::npos ? begin : prompt.find('>', begin);
    html += escape_html(prompt.substr(at, end == std::string::npos ? std::string::npos : begin - at));
    if (end == std::string::npos) break;
    html += "<span class=blank>" + escape_html(prompt.substr(begin + 10, end - begin - 10)) + "</span>";
    at = end + 1;
  }
  return html;
}

// The filled text with what stands in the blanks marked; plain if the text around them was not kept.
std::string mark_fillings(const std::string& prompt, const std::string& filled) {
  std::string html;
  size_t at_prompt = 0, at = 0;
  while (true) {
    const size_t begin = prompt.find("<extra_id_", at_prompt),
                 end = begin == std::string::npos ? begin : prompt.find('>', begin);
    const std::string piece =
        prompt.substr(at_prompt, end == std::string::npos ? std::string::npos : begin - at_prompt);
    const size_t found = end == std::string::npos && filled.size() >= piece.size() && filled.ends_with(piece)
                             ? std::max(at, filled.size() - piece.size())
                             : filled.find(piece, at);
    if (found == std::string::npos) return escape_html(filled);
    if (found > at)
      html += at_prompt == 0 ? escape_html(filled.substr(at, found - at))
                             : "<mark>" + escape_html(filled.substr(at, found - at)) + "</mark>";
    html += escape_html(piece);
    at = found + piece.size();
    if (end == std::string::npos) break;
    at_prompt = end + 1;
  }
  return html + escape_html(filled.substr(at));
}

std::string samples_section(const std::vector<BlankSample>& samples) {
  std::string html;
  for (const auto& sample : samples) {
    html += "<div class=sample><dl><dt>prompt</dt><dd>" + show_blanks(sample.prompt) + "</dd>";
    if (!sample.text.empty()) html += "<dt>original</dt><dd>" + mark_fillings(sample.prompt, sample.text) + "</dd>";
    for (const auto& [run, filled] : sample.filled)
      html += "<dt>" + escape_html(run) + "</dt><dd>" + mark_fillings(sample.prompt, filled) + "</dd>";
    html += "</dl></div>\n";
  }
  return html.empty() ? ""
                      : "<h2>Blanks filled in</h2>\n<p class=quiet>Held-out sentences; marked is what stands in the "
                        "blanks.</p>\n" +
                            html;
}

// Keys whose values differ between runs, then each run's file.
std::string config_section(const std::vector<RunLog>& runs) {
  std::string rows, files;
  std::vector<std::string> keys;
  for (const auto& run : runs)
    for (const auto& [name, values] : run.config.items())
      for (const auto& [key, value] : values.items())
        if (std::find(keys.begin(), keys.end(), name + "." + key) == keys.end()) keys.push_back(name + "." + key);
  for (const auto& key : keys) {
    const std::string name = key.substr(0, key.find('.')), field = key.substr(key.find('.') + 1);
    const auto text = [&](const RunLog& run) { return config_text(run, name.c_str(), field.c_str()); };
    if (std::all_of(runs.begin(), runs.end(), [&](const RunLog& run) { return text(run) == text(runs.front()); }))
      continue;
    rows += "<tr><td>" + escape_html(key) + "</td>";
    for (const auto& run : runs) rows += "<td>" + escape_html(text(run)) + "</td>";
    rows += "</tr>\n";
  }
  std::string head;
  for (const auto& run : runs) {
    head += "<th>" + escape_html(run.name);
    if (!run.config.empty())
      files += "<details><summary>run.toml of " + escape_html(run.name) + "</summary><pre>" +
               escape_html(write_toml(run.config)) + "</pre></details>\n";
  }
  if (!rows.empty())
    rows = "<div class='scroll left'><table><tr><th>Key" + head + "</tr>\n" + rows + "</table></div>\n";
  return rows.empty() && files.empty()
             ? ""
             : std::string("<h2>Configuration</h2>\n") +
                   (rows.empty() ? "" : "<p class=quiet>Keys in which the runs differ.</p>") + rows + files;
}

}  // namespace

std::string make_sections(const ReportInput& input) {
  const auto& runs = input.runs;
  const std::string loss_key =
      std::any_of(runs.begin(), runs.end(), [](const RunLog& run) { return !run.scalar("cross_entropy").empty(); })
          ? "cross_entropy"
          : "loss";
  std::string html;
  for (const auto& [source, document] : input.ladders) html += draw_ladder(document, source);
  for (const auto& [source, document] : input.studies) html += draw_study(document, source);
  if (runs.empty()) return html;
  html += runs_table(runs) + equal_terms_table(runs);
  html += section("Learning",
                  "Solid lines are moving means over a fortieth of the run; the values themselves are faint. The first "
                  "twentieth may leave the plot. Time is training time: evaluation and saving are left out.",
                  run_chart(runs, "eval_loss", "Held-out loss against steps", kLossLabel, false, false) +
                      run_chart(runs, "eval_loss", "Held-out loss against time", kLossLabel, true, false) +
                      run_chart(runs, loss_key, "Training loss against steps", kLossLabel, false, true) +
                      run_chart(runs, loss_key, "Training loss against time", kLossLabel, true, true));
  html +=
      section("Optimisation and speed", "",
              run_chart(runs, "learning_rate", "Learning rate", "rate", false, false) +
                  run_chart(runs, "gradient_norm", "Gradient norm", "norm", false, true) +
                  run_chart(runs, "tokens_per_second", "Speed", "tokens per second", false, true) +
                  dropped_chart(runs) + run_chart(runs, "load_balance_loss", "Load balance loss", "loss", false, true));
  std::string routing;
  for (const auto& run : runs) routing += routing_section(run);
  if (!routing.empty()) html += "<h2>Routing</h2>\n" + routing;
  html += draw_parts(runs);
  for (const auto& [source, document] : input.scaling) html += draw_scaling(document, source);
  html += samples_section(input.samples) + config_section(runs);
  return html;
}

std::string make_page(const ReportInput& input) {
  std::string title;
  for (const auto& run : input.runs) title += (title.empty() ? "" : ", ") + run.name;
  const std::string subtitle =
      input.runs.empty() ? ""
                         : join("<p class=quiet>", input.runs.size(), input.runs.size() == 1 ? " run" : " runs", ": ",
                                escape_html(title), "</p>\n");
  if (title.empty()) title = input.studies.empty() ? "Ladder" : "Study";
  const std::string html =
      "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width, "
      "initial-scale=1'>\n<title>" +
      escape_html(title) + " - Switchyard report</title>\n<style>" + kPageStyle + "</style></head><body>\n" +
      "<h1>Training report</h1>\n" + subtitle + make_sections(input);
  return html + "<script>" + kPageScript + "</script>\n</body></html>\n";
}

}  // namespace switchyard
