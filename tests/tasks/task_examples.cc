// A task's examples for test_t5_forms.py: task_examples TASK DATA SPLIT [train] prints one JSON object a line.
#include <iostream>

#include "base/error.h"
#include "tasks/examples.h"

int main(int argc, char** argv) {
  using namespace switchyard;
  if (argc < 4) return 2;
  try {
    const auto task = find_task(argv[1]);
    for (const auto& example : read_examples(task, argv[2], argv[3], {.for_training = argc > 4}).examples)
      std::cout << Json{{"inputs", example.inputs},
                        {"targets", example.targets},
                        {"class", example.target_class},
                        {"references", example.references},
                        {"group", example.group}}
                       .dump()
                << '\n';
  } catch (const Error& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
}
