#include "serve/statistics.h"

#include <sstream>

namespace switchyard {
namespace {

void describe(std::ostream& text, const std::string& name, const char* type, const std::string& help) {
  text << "# HELP " << name << ' ' << help << "\n# TYPE " << name << ' ' << type << '\n';
}

}  // namespace

void SecondsHistogram::add(double seconds) {
  size_t place = 0;
  while (place < kBounds.size() && seconds > kBounds[place]) ++place;
  const std::lock_guard lock(mutex_);
  ++counts_[place];
  sum_ += seconds;
}

std::string SecondsHistogram::text(const std::string& name, const std::string& help) const {
  std::ostringstream text;
  describe(text, name, "histogram", help);
  const std::lock_guard lock(mutex_);
  int64_t total = 0;
  for (size_t place = 0; place < counts_.size(); ++place) {
    total += counts_[place];
    text << name << "_bucket{le=\"";
    if (place < kBounds.size())
      text << kBounds[place];
    else
      text << "+Inf";
    text << "\"} " << total << '\n';
  }
  text << name << "_sum " << sum_ << '\n' << name << "_count " << total << '\n';
  return text.str();
}

void ServerStatistics::count_response(const std::string& path, int status) {
  const std::lock_guard lock(mutex_);
  ++responses_[{path, status}];
}

std::string ServerStatistics::text(int64_t queued, int64_t running, int64_t rows) const {
  std::ostringstream text;
  const auto number = [&](const char* name, const char* type, const char* help, int64_t value) {
    describe(text, name, type, help);
    text << name << ' ' << value << '\n';
  };
  number("switchyard_requests_queued", "gauge", "Requests that wait for free rows.", queued);
  number("switchyard_requests_running", "gauge", "Requests in the running batch.", running);
  number("switchyard_rows", "gauge", "Rows of the running batch.", rows);
  number("switchyard_prompt_tokens_total", "counter", "Tokens of prompts that were taken.", tokens_in);
  number("switchyard_generated_tokens_total", "counter", "Tokens that were generated.", tokens_out);
  number("switchyard_requests_cancelled_total", "counter", "Requests whose client went away.", cancelled);
  describe(text, "switchyard_responses_total", "counter", "Responses by path and status.");
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, count] : responses_)
      text << "switchyard_responses_total{path=\"" << key.first << "\",status=\"" << key.second << "\"} " << count
           << '\n';
  }
  text << first_token.text("switchyard_time_to_first_token_seconds", "From a request's arrival to its first token.")
       << next_token.text("switchyard_time_per_token_seconds", "Between a request's tokens.")
       << request.text("switchyard_request_seconds", "From a request's arrival to its end.");
  return text.str();
}

}  // namespace switchyard
