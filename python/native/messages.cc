#include "base/messages.h"

#include "native/bindings.h"
#include "native/json_objects.h"

namespace nb = nanobind;

namespace switchyard {
namespace {

// What libraries say goes to a Python function, and while they work for long, such as tokenising text, Ctrl-C is looked
// for: its KeyboardInterrupt leaves through them as any exception does.
class PythonMessages : public MessageSink {
 public:
  explicit PythonMessages(nb::callable say) : say_(std::move(say)) {}
  PythonMessages(const PythonMessages&) = delete;
  PythonMessages& operator=(const PythonMessages&) = delete;
  ~PythonMessages() override {
    const nb::gil_scoped_acquire lock;
    say_.reset();
  }

  void message(const std::string& line) override {
    const nb::gil_scoped_acquire lock;
    say_(to_python(line));
  }
  void progress(const ProgressLine&) override {
    const nb::gil_scoped_acquire lock;
    if (PyErr_CheckSignals() != 0) nb::raise_python_error();  // only ever on Python's main thread
  }
  void end_progress() override {}
  bool redraws() const override { return true; }  // asks for progress five times a second

 private:
  nb::object say_;
};

}  // namespace

void bind_messages(nb::module_& module) {
  // None, at the interpreter's end: its lock is not to be had any more.
  module.def(
      "set_message_sink",
      [](nb::object say) {
        set_message_sink(say.is_none() ? std::shared_ptr<MessageSink>(std::make_shared<NoMessages>())
                                       : std::make_shared<PythonMessages>(nb::cast<nb::callable>(say)));
      },
      nb::arg("say").none());
}

}  // namespace switchyard
