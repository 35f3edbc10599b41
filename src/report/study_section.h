// A study of several runs as tables and charts, from the study.json that a script of scripts/study_*.py writes:
//
//   {"title": ..., "about": ...,
//    "tables": [{"title": ..., "about": ..., "columns": [{"name": ..., "digits": 2, "best": "highest"}, ...],
//                "rows": [{"name": ..., "cells": [[81.5, 80.3], "87 %", null, ...]}, ...]}, ...],
//    "charts": [{"title": ..., "x_label": ..., "y_label": ...,
//                "lines": [{"name": ..., "runs": [[[step, value], ...], ...]}, ...]}, ...]}
//
// A cell is a text, nothing, or the numbers of all seeds, shown as their mean and its standard error. `best` (highest
// or lowest; may be absent) says which mean of a column is marked.
#pragma once

#include <string>

#include "base/json.h"

namespace switchyard {

// Throw Error naming `source` and what is missing if the document is not of that form.
std::string draw_study(const Json& document, const std::string& source);

// The same tables with their cells as texts, for who prints them: {"title", "tables": [{"title", "columns": [name,
// ...], "rows": [[name, cell, ...], ...]}, ...]}.
Json study_tables(const Json& document, const std::string& source);

}  // namespace switchyard
