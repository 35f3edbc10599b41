#include "data/token_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iomanip>
#include <optional>
#include <sstream>
#include <string>

#include "base/error.h"
#include "base/files.h"
#include "base/messages.h"
#include "data/tokenization.h"
#include "text/reader.h"
#include "text/vocabulary.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMagic = 0x31534E454B4F5953;  // "SYOKENS1"

// The end of a cache file: ids of `width` bytes, then the key as text, then this. Little-endian.
struct Trailer {
  uint64_t magic = kMagic;
  uint32_t width = 0;  // 2 or 4 bytes an id
  uint32_t key_bytes = 0;
  int64_t num_tokens = 0;
  int64_t num_documents = 0;
  int64_t text_bytes = 0;
  uint32_t payload_checksum = 0;  // CRC-32 of ids and key
  uint32_t trailer_checksum = 0;  // CRC-32 of the fields above
};
static_assert(sizeof(Trailer) == 48);

uint32_t checksum(const void* bytes, size_t size, uint32_t so_far = 0) {
  if (size == 0) return so_far;  // an empty vector may give a null pointer, with which zlib would begin a new sum
  return static_cast<uint32_t>(::crc32_z(so_far, static_cast<const Bytef*>(bytes), size));
}
uint32_t trailer_checksum(const Trailer& trailer) { return checksum(&trailer, offsetof(Trailer, trailer_checksum)); }

std::string hexadecimal(uint32_t value) {
  std::ostringstream text;
  text << std::hex << std::setw(8) << std::setfill('0') << value;
  return text.str();
}

struct CacheKey {
  std::string source;   // the part that names the cache file: which text under which vocabulary
  std::string version;  // the part that makes it stale
  std::string text() const { return source + version; }
};

CacheKey cache_key(const fs::path& file, const Vocabulary& vocabulary) {
  const std::string& model = vocabulary.model_bytes();
  std::error_code error;
  const fs::path absolute = fs::weakly_canonical(file, error);
  const auto size = fs::file_size(file, error);
  const auto modified = fs::last_write_time(file, error).time_since_epoch();
  SY_CHECK(!error, "cannot read ", file.string(), ": ", error.message());
  const auto adler = static_cast<uint32_t>(::adler32_z(1, reinterpret_cast<const Bytef*>(model.data()), model.size()));
  std::string added;
  for (const auto& token : vocabulary.added_tokens())
    added += join("added ", token.id, " ", token.single_word, " ", token.content.size(), " ", token.content, "\n");
  return {
      join("switchyard tokens 1\ntext ", (error ? file : absolute).string(), "\nvocabulary ", model.size(), " bytes ",
           hexadecimal(checksum(model.data(), model.size())), " ", hexadecimal(adler), ", ", vocabulary.num_sentinels(),
           " sentinels\n", added),
      join("size ", size, "\nmodified ", std::chrono::duration_cast<std::chrono::nanoseconds>(modified).count(), "\n")};
}

// Takes an exclusive lock on the folder itself, so that no lock file stays behind.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& folder)
      : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    // A file system without locks only costs double work: files still appear whole, by rename.
    while (descriptor_ >= 0 && ::flock(descriptor_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  ~FolderLock() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

 private:
  int descriptor_;
};

// Writes ids as they come through `write(bytes, size)`, then key and trailer.
Trailer write_shard(const fs::path& file, const Vocabulary& vocabulary, const std::string& key, int num_threads,
                    const std::function<void(const void*, size_t)>& write) {
  Trailer trailer;
  trailer.width = vocabulary.size() <= 1 << 16 ? 2 : 4;
  std::vector<uint16_t> narrow;
  const auto write_checked = [&](const void* bytes, size_t size) {
    trailer.payload_checksum = checksum(bytes, size, trailer.payload_checksum);
    write(bytes, size);
  };
  const auto totals = tokenize_file(file, vocabulary, num_threads, [&](std::span<const int32_t> ids) {
    if (trailer.width == 4) return write_checked(ids.data(), ids.size_bytes());
    narrow.assign(ids.begin(), ids.end());
    write_checked(narrow.data(), narrow.size() * sizeof(uint16_t));
  });
  write_checked(key.data(), key.size());
  trailer.key_bytes = static_cast<uint32_t>(key.size());
  trailer.num_tokens = totals.num_tokens;
  trailer.num_documents = totals.num_documents;
  trailer.text_bytes = totals.text_bytes;
  trailer.trailer_checksum = trailer_checksum(trailer);
  write(&trailer, sizeof(trailer));
  return trailer;
}

}  // namespace

struct TokenStore::Shard {
  std::optional<MappedFile> mapping;  // the ids are here,
  std::string memory;                 // here,
  std::vector<int32_t> tokens;        // or here
  const std::byte* ids = nullptr;
  Trailer trailer;

  void read(int64_t begin, std::span<int32_t> out) const {
    const std::byte* from = ids + begin * trailer.width;
    if (trailer.width == 4) {
      std::memcpy(out.data(), from, out.size_bytes());
      return;
    }
    for (size_t token = 0; token < out.size(); ++token) {
      uint16_t id;
      std::memcpy(&id, from + token * sizeof(id), sizeof(id));
      out[token] = id;
    }
  }

  enum class State { kGood, kStale, kDamaged };

  // Fills ids and trailer from a whole shard's bytes.
  State adopt(std::span<const std::byte> bytes, const std::string& key) {
    if (bytes.size() < sizeof(Trailer)) return State::kDamaged;
    std::memcpy(&trailer, bytes.data() + bytes.size() - sizeof(Trailer), sizeof(Trailer));
    if (trailer.magic != kMagic || trailer.trailer_checksum != trailer_checksum(trailer)) return State::kDamaged;
    const uint64_t payload_bytes = static_cast<uint64_t>(trailer.num_tokens) * trailer.width;
    if (payload_bytes + trailer.key_bytes + sizeof(Trailer) != bytes.size()) return State::kDamaged;
    if (checksum(bytes.data(), payload_bytes + trailer.key_bytes) != trailer.payload_checksum) return State::kDamaged;
    const std::string_view stored(reinterpret_cast<const char*>(bytes.data()) + payload_bytes, trailer.key_bytes);
    if (stored != key) return State::kStale;
    ids = bytes.data();
    return State::kGood;
  }

  static std::shared_ptr<const Shard> make_in_memory(const fs::path& file, const Vocabulary& vocabulary,
                                                     int num_threads) {
    auto shard = std::make_shared<Shard>();
    shard->trailer = write_shard(file, vocabulary, "", num_threads, [&](const void* bytes, size_t size) {
      shard->memory.append(static_cast<const char*>(bytes), size);
    });
    shard->ids = reinterpret_cast<const std::byte*>(shard->memory.data());
    return shard;
  }

  static std::shared_ptr<const Shard> open_cached(const fs::path& cached, const std::string& key, bool tell) {
    if (!fs::exists(cached)) return nullptr;
    auto shard = std::make_shared<Shard>();
    shard->mapping.emplace(cached);
    const State state = shard->adopt(shard->mapping->bytes(), key);
    if (state == State::kDamaged && tell) say(cached.string(), ": damaged; making it again");
    return state == State::kGood ? shard : nullptr;
  }

  static std::shared_ptr<const Shard> make_cached(const fs::path& file, const Vocabulary& vocabulary,
                                                  const TokenStoreOptions& options) {
    const CacheKey key = cache_key(file, vocabulary);
    const fs::path cached =
        options.cache_folder / (file.filename().string().substr(0, 80) + "-" +
                                hexadecimal(checksum(key.source.data(), key.source.size())) + ".tokens");
    if (auto shard = open_cached(cached, key.text(), false)) return shard;
    const FolderLock lock(options.cache_folder);
    if (auto shard = open_cached(cached, key.text(), true)) return shard;  // made while we waited
    {
      AtomicFile out(cached);
      std::string buffer;
      const auto flush = [&] {
        out.write(buffer.data(), buffer.size());
        buffer.clear();
      };
      write_shard(file, vocabulary, key.text(), options.num_threads, [&](const void* bytes, size_t size) {
        buffer.append(static_cast<const char*>(bytes), size);
        if (buffer.size() >= 1 << 20) flush();
      });
      flush();
      out.commit();
    }
    auto shard = open_cached(cached, key.text(), true);
    SY_CHECK(shard != nullptr, cached.string(), ": written, but reads back damaged; check the disk");
    return shard;
  }
};

TokenStore TokenStore::open(const std::vector<fs::path>& paths, const Vocabulary& vocabulary,
                            const TokenStoreOptions& options) {
  if (!options.cache_folder.empty()) {
    std::error_code error;
    fs::create_directories(options.cache_folder, error);
    SY_CHECK(fs::is_directory(options.cache_folder), "cannot make the cache folder ", options.cache_folder.string(),
             ": ", error.message());
  }
  TokenStore store;
  for (const auto& file : find_text_files(paths)) {
    const bool cache = !options.cache_folder.empty() && fs::is_regular_file(file);
    store.append(cache ? Shard::make_cached(file, vocabulary, options)
                       : Shard::make_in_memory(file, vocabulary, options.num_threads));
  }
  SY_CHECK(store.size_ > 0, paths.front().string(), paths.size() > 1 ? join(" and ", paths.size() - 1, " more") : "",
           ": no text in it; expected at least one line that is not blank");
  return store;
}

TokenStore TokenStore::from_tokens(std::vector<int32_t> tokens) {
  auto shard = std::make_shared<Shard>();
  shard->trailer.width = 4;
  shard->trailer.num_tokens = static_cast<int64_t>(tokens.size());
  shard->trailer.num_documents = 1;
  shard->tokens = std::move(tokens);
  shard->ids = reinterpret_cast<const std::byte*>(shard->tokens.data());
  TokenStore store;
  store.append(std::move(shard));
  return store;
}

void TokenStore::append(std::shared_ptr<const Shard> shard) {
  num_documents_ += shard->trailer.num_documents;
  text_bytes_ += shard->trailer.text_bytes;
  if (shard->trailer.num_tokens == 0) return;
  begins_.push_back(size_);
  size_ += shard->trailer.num_tokens;
  shards_.push_back(std::move(shard));
}

void TokenStore::read(int64_t begin, std::span<int32_t> out) const {
  const auto count = static_cast<int64_t>(out.size());
  SY_CHECK(begin >= 0 && count <= size_ && begin <= size_ - count, "tokens ", begin, " to ", begin + count, " of ",
           size_);
  if (count == 0) return;
  auto shard = static_cast<size_t>(std::upper_bound(begins_.begin(), begins_.end(), begin) - begins_.begin() - 1);
  while (!out.empty()) {
    const int64_t within = begin - begins_[shard];
    const int64_t available =
        std::min<int64_t>(shards_[shard]->trailer.num_tokens - within, static_cast<int64_t>(out.size()));
    shards_[shard]->read(within, out.first(static_cast<size_t>(available)));
    out = out.subspan(static_cast<size_t>(available));
    begin += available;
    ++shard;
  }
}

}  // namespace switchyard
