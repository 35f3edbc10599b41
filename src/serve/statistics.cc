#include "serve/statistics.h"

#include <cstdio>

namespace switchyard {

void MetricsText::describe(const std::string& name, const char* type, const std::string& help) {
  text_ += "# HELP " + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
}

void MetricsText::add(const std::string& name, const Labels& labels, double value) {
  text_ += name;
  for (size_t n = 0; n < labels.size(); ++n)
    text_ += (n == 0 ? "{" : ",") + labels[n].first + "=\"" + labels[n].second + "\"";
  char number[32];
  std::snprintf(number, sizeof number, "%.17g", value);
  text_ += (labels.empty() ? " " : "} ") + std::string(number) + "\n";
}

void SecondsHistogram::add(double seconds) {
  size_t place = 0;
  while (place < kBounds.size() && seconds > kBounds[place]) ++place;
  const std::lock_guard lock(mutex_);
  ++counts_[place];
  sum_ += seconds;
}

void SecondsHistogram::write(MetricsText& text, const std::string& name, const std::string& help) const {
  text.describe(name, "histogram", help);
  const std::lock_guard lock(mutex_);
  int64_t total = 0;
  for (size_t place = 0; place < counts_.size(); ++place) {
    total += counts_[place];
    char bound[32] = "+Inf";
    if (place < kBounds.size()) std::snprintf(bound, sizeof bound, "%g", kBounds[place]);
    text.add(name + "_bucket", {{"le", bound}}, static_cast<double>(total));
  }
  text.add(name + "_sum", {}, sum_);
  text.add(name + "_count", {}, static_cast<double>(total));
}

void ServerStatistics::count_response(const std::string& path, int status) {
  const std::lock_guard lock(mutex_);
  ++responses_[{path, status}];
}

std::string ServerStatistics::text(const ServerNow& now) const {
  MetricsText text;
  const auto number = [&](const char* name, const char* type, const char* help, int64_t value) {
    text.describe(name, type, help);
    text.add(name, {}, static_cast<double>(value));
  };
  number("switchyard_requests_queued", "gauge", "Requests that wait for free slots.", now.queued);
  number("switchyard_queue", "gauge", "Requests that may wait.", now.queue);
  number("switchyard_requests_running", "gauge", "Requests in the running batch.", now.running);
  number("switchyard_slots", "gauge", "Slots of the running batch.", now.rows);
  number("switchyard_prompt_tokens_total", "counter", "Tokens of prompts that were taken.", tokens_in);
  number("switchyard_generated_tokens_total", "counter", "Tokens that were generated.", tokens_out);
  number("switchyard_requests_cancelled_total", "counter", "Requests that ended without their answer.", cancelled);
  constexpr const char* kResponses = "switchyard_responses_total";
  text.describe(kResponses, "counter", "Responses by path and status.");
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, count] : responses_)
      text.add(kResponses, {{"path", key.first}, {"status", std::to_string(key.second)}}, static_cast<double>(count));
  }
  first_token.write(text, "switchyard_time_to_first_token_seconds", "From a request's arrival to its first token.");
  next_token.write(text, "switchyard_time_per_token_seconds", "Between a request's tokens.");
  request.write(text, "switchyard_request_seconds", "From a request's arrival to its end.");
  return text.text();
}

}  // namespace switchyard
