#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "base/error.h"
#include "generate/session.h"
#include "generate/text_stream.h"
#include "native/bindings.h"
#include "native/json_objects.h"
#include "native/model.h"

namespace nb = nanobind;

namespace switchyard {
namespace {

// Python's own process is the only one to be harmed by what it asks for.
constexpr RequestLimits kLimits{
    .prompt_bytes = size_t{1} << 30, .prompt_tokens = 1 << 24, .max_tokens = 1 << 24, .rows = 1 << 16};

// Requests that run together, a step at a time, with what has come of them.
class Generation {
 public:
  // `requests`: a list of objects with the keys of request_keys(). The model outlives the generation.
  Generation(PythonModel& model, const Json& requests, int64_t slots, bool streams) : model_(model) {
    SY_CHECK(slots >= 1, "slots = ", slots, ": expected at least 1");
    const std::lock_guard lock(model_.mutex);
    const bool several = requests.size() > 1;
    std::vector<Request> read;
    for (size_t n = 0; n < requests.size(); ++n) {
      named(several, n, [&] { read.push_back(read_request(requests[n], model_.text(), kLimits)); });
      read[n].search.number = n;
    }
    SessionOptions options{.rows = 1, .max_length = 1};
    for (const auto& request : read) {
      options.rows = std::max(options.rows, most_rows(request.search));
      options.max_length =
          std::max(options.max_length, static_cast<int64_t>(request.prefix.size()) + request.search.max_tokens);
    }
    options.rows *= std::min<int64_t>(slots, static_cast<int64_t>(std::max<size_t>(1, read.size())));
    session_.emplace(model_.model.config, model_.model.weights, model_.text(), options);
    results_.resize(read.size());
    if (streams) start_stream(read);
    for (size_t n = 0; n < read.size(); ++n) named(several, n, [&] { submit(std::move(read[n]), n, several); });
  }

  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // False when all is done. Throws Error where a request failed.
  bool step() {
    const std::lock_guard lock(model_.mutex);
    const bool more = session_->step();
    if (!error_.empty()) throw Error(error_);
    if (!more && stream_) text_ += stream_->finish();
    return more;
  }

  std::string take_text() { return std::exchange(text_, {}); }
  const std::vector<Json>& results() const { return results_; }

 private:
  template <class Work>
  static void named(bool several, size_t n, const Work& work) {
    try {
      work();
    } catch (const Error& error) {
      if (!several) throw;
      throw Error(join("prompt ", n + 1, ": ", error.what()));
    }
  }

  void start_stream(const std::vector<Request>& requests) {
    SY_CHECK(requests.size() == 1, "stream takes one prompt, got ", requests.size());
    const auto& request = requests.front();
    SY_CHECK(request.search.beams.num_beams == 1 && request.search.num_results == 1,
             "stream: with beams or several samples there is no one text that grows; leave out beams and n, or use "
             "generate");
    SY_CHECK(model_.text() != nullptr, "stream gives text, and this model has no vocabulary; use generate");
    stream_.emplace(*model_.text(), request.stop);
    for (const int32_t id : request.prefix) text_ += stream_->add(id);
  }

  void submit(Request request, size_t n, bool several) {
    Listener listener;
    if (stream_) listener.on_token = [this](size_t, int32_t id) { text_ += stream_->add(id); };
    listener.on_result = [this, n, several](const Request& asked, const Result& result) {
      if (result.error.empty())
        results_[n] = result_json(asked, result.outputs, model_.text());
      else if (error_.empty())
        error_ = several ? join("prompt ", n + 1, ": ", result.error) : result.error;
    };
    session_->submit(std::move(request), std::move(listener));
  }

  PythonModel& model_;
  std::optional<Session> session_;
  std::optional<TextStream> stream_;
  std::string text_;  // not taken yet
  std::vector<Json> results_;
  std::string error_;
};

}  // namespace

void bind_generation(nb::module_& module) {
  const auto release = nb::call_guard<nb::gil_scoped_release>();
  nb::class_<Generation>(module, "Generation")
      .def(
          "__init__",
          [](Generation* self, PythonModel& model, nb::handle requests, int64_t slots, bool streams) {
            const auto json = to_json(requests, "");
            const nb::gil_scoped_release unlocked;
            new (self) Generation(model, json, slots, streams);
          },
          nb::arg("model"), nb::arg("requests"), nb::arg("slots"), nb::arg("streams"), nb::keep_alive<1, 2>())
      .def("step", &Generation::step, release)
      .def("take_text", [](Generation& self) { return to_python(self.take_text()); })
      .def("results", [](const Generation& self) {
        nb::list results;
        for (const auto& result : self.results()) results.append(to_python(result));
        return results;
      });
  module.def("request_keys", &request_keys);
}

}  // namespace switchyard
