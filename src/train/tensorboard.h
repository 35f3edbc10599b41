// TensorBoard event files of scalars, written without TensorFlow: a record is a protobuf `Event` between its length and
// masked CRC-32C sums. Only what TensorBoard needs for scalar charts is encoded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "base/config.h"

namespace switchyard {

uint32_t crc32c(std::string_view bytes);  // Castagnoli polynomial, reflected: crc32c("123456789") = 0xE3069283

class EventWriter {
 public:
  // A new events.out.tfevents.* in `folder`. It begins with a session start, at which TensorBoard forgets what an
  // earlier, killed session wrote after `step`. Throws Error if the file cannot be made.
  EventWriter(const std::filesystem::path& folder, int64_t step);
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;
  ~EventWriter();

  // One event with every number of `metrics` as a scalar (f32) under its key, but for `step`; those of an object under
  // "key/name". Everything else is left out. Throws Error if the disk is full or fails.
  void write(int64_t step, const Json& metrics);

 private:
  void append(std::string_view event);

  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace switchyard
