#include "report/study_section.h"

#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <vector>

#include "base/error.h"
#include "report/chart.h"
#include "report/html.h"

namespace switchyard {
namespace {

using Points = std::vector<std::pair<double, double>>;

struct Cell {
  std::string text;
  std::optional<double> mean;
  bool is_best = false;
};

struct Row {
  std::string name;
  std::vector<Cell> cells;
};

struct Table {
  std::string title, about;
  std::vector<std::string> columns;
  std::vector<Row> rows;
};

const Json& list_at(const Json& object, const char* key, const std::string& source) {
  SY_CHECK(object.is_object() && object.contains(key) && object.at(key).is_array(), source, ": expected a list \"", key,
           "\" of a study");
  return object.at(key);
}

std::string text_at(const Json& object, const char* key, const std::string& source) {
  SY_CHECK(object.is_object() && object.contains(key) && object.at(key).is_string(), source, ": expected a text \"",
           key, "\" of a study");
  return object.at(key).get<std::string>();
}

std::string optional_text(const Json& object, const char* key, const std::string& source) {
  return object.is_object() && object.contains(key) ? text_at(object, key, source) : "";
}

double number_of(const Json& value, const std::string& source) {
  SY_CHECK(value.is_number(), source, ": expected a number of a study, got ", value.dump());
  return value.get<double>();
}

Cell read_cell(const Json& value, int digits, const std::string& source) {
  if (value.is_null()) return {};
  if (value.is_string()) return {.text = value.get<std::string>(), .mean = {}};
  SY_CHECK(value.is_array() && !value.empty(), source,
           ": expected a text, null or a list of numbers in a cell of a study, got ", value.dump());
  const auto count = static_cast<double>(value.size());
  double mean = 0.0, squares = 0.0;
  for (const auto& each : value) mean += number_of(each, source) / count;
  for (const auto& each : value) squares += std::pow(each.get<double>() - mean, 2);
  char text[64];
  if (value.size() == 1)
    std::snprintf(text, sizeof text, "%.*f", digits, mean);
  else
    std::snprintf(text, sizeof text, "%.*f ± %.*f", digits, mean, digits, std::sqrt(squares / (count - 1.0) / count));
  return {.text = text, .mean = mean};
}

// Marks the best mean of a column; none where only one row has a mean.
void mark_best(std::vector<Row>& rows, size_t column, const std::string& best, const std::string& source) {
  if (best.empty()) return;
  SY_CHECK(best == "highest" || best == "lowest", source,
           R"(: expected "best" of a column to be highest or lowest, got ")", best, "\"");
  Cell* found = nullptr;
  size_t count = 0;
  for (auto& row : rows) {
    auto& cell = row.cells[column];
    if (!cell.mean) continue;
    ++count;
    if (found == nullptr || (best == "highest" ? *cell.mean > *found->mean : *cell.mean < *found->mean)) found = &cell;
  }
  if (count > 1) found->is_best = true;
}

Table read_table(const Json& document, const std::string& source) {
  Table table{.title = text_at(document, "title", source),
              .about = optional_text(document, "about", source),
              .columns = {},
              .rows = {}};
  const auto& columns = list_at(document, "columns", source);
  for (const auto& column : columns) table.columns.push_back(text_at(column, "name", source));
  for (const auto& entry : list_at(document, "rows", source)) {
    Row row{.name = text_at(entry, "name", source), .cells = {}};
    const auto& cells = list_at(entry, "cells", source);
    SY_CHECK(cells.size() == columns.size(), source, ": row \"", row.name, "\" has ", cells.size(),
             " cells; expected one for each of ", columns.size(), " columns");
    for (size_t n = 0; n < cells.size(); ++n) {
      const int digits =
          columns[n].contains("digits") ? static_cast<int>(number_of(columns[n].at("digits"), source)) : 2;
      row.cells.push_back(read_cell(cells[n], digits, source));
    }
    table.rows.push_back(std::move(row));
  }
  for (size_t n = 0; n < columns.size(); ++n)
    mark_best(table.rows, n, optional_text(columns[n], "best", source), source);
  return table;
}

std::string draw_table(const Table& table) {
  std::string html = "<h3>" + escape_html(table.title) + "</h3>\n";
  if (!table.about.empty()) html += "<p class=quiet>" + escape_html(table.about) + "</p>\n";
  html += "<div class=scroll><table><tr><th>";
  for (const auto& column : table.columns) html += "<th>" + escape_html(column);
  html += "</tr>\n";
  for (const auto& row : table.rows) {
    html += "<tr><td>" + escape_html(row.name) + "</td>";
    for (const auto& cell : row.cells)
      html += (cell.is_best ? "<td class=best>" : "<td>") + escape_html(cell.text) + "</td>";
    html += "</tr>\n";
  }
  return html + "</table></div>\n";
}

// Each seed's curve faint, and over them their mean at the places that all of them have.
std::string chart_of(const Json& document, const std::string& source) {
  Chart chart{.title = text_at(document, "title", source),
              .x_label = text_at(document, "x_label", source),
              .y_label = text_at(document, "y_label", source),
              .lines = {}};
  size_t color = 0;
  for (const auto& line : list_at(document, "lines", source)) {
    const auto& runs = list_at(line, "runs", source);
    std::map<double, std::vector<double>> values;
    for (const auto& run : runs) {
      Points points;
      SY_CHECK(run.is_array(), source, ": expected a list of points of a study, got ", run.dump());
      for (const auto& point : run) {
        SY_CHECK(point.is_array() && point.size() == 2, source, ": expected points [x, y] of a study, got ",
                 point.dump());
        points.emplace_back(number_of(point[0], source), number_of(point[1], source));
        values[points.back().first].push_back(points.back().second);
      }
      if (runs.size() > 1)
        chart.lines.push_back({.name = "", .color = color, .points = std::move(points), .is_faint = true});
    }
    Points means;
    for (const auto& [x, of_runs] : values) {
      double sum = 0.0;
      for (const double value : of_runs) sum += value;
      if (of_runs.size() == runs.size()) means.emplace_back(x, sum / static_cast<double>(runs.size()));
    }
    chart.lines.push_back(
        {.name = text_at(line, "name", source), .color = color++, .points = std::move(means), .has_markers = true});
  }
  return draw_chart(chart);
}

std::vector<Table> read_tables(const Json& document, const std::string& source) {
  std::vector<Table> tables;
  for (const auto& table : list_at(document, "tables", source)) tables.push_back(read_table(table, source));
  return tables;
}

}  // namespace

std::string draw_study(const Json& document, const std::string& source) {
  std::string html = "<h2>" + escape_html(text_at(document, "title", source)) + "</h2>\n";
  if (const auto about = optional_text(document, "about", source); !about.empty())
    html += "<p class=quiet>" + escape_html(about) + "</p>\n";
  for (const auto& table : read_tables(document, source)) html += draw_table(table);
  std::string charts;
  if (document.contains("charts"))
    for (const auto& chart : list_at(document, "charts", source)) charts += chart_of(chart, source);
  return html + (charts.empty() ? "" : "<h3>Curves</h3>\n<div class=grid-2>\n" + charts + "</div>\n");
}

Json study_tables(const Json& document, const std::string& source) {
  Json tables = Json::array();
  for (const auto& table : read_tables(document, source)) {
    Json rows = Json::array();
    for (const auto& row : table.rows) {
      Json texts = Json::array({row.name});
      for (const auto& cell : row.cells) texts.push_back(cell.text);
      rows.push_back(std::move(texts));
    }
    tables.push_back({{"title", table.title}, {"columns", table.columns}, {"rows", std::move(rows)}});
  }
  return {{"title", text_at(document, "title", source)}, {"tables", std::move(tables)}};
}

}  // namespace switchyard
