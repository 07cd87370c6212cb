#include "nn/packed_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <iomanip>
#include <random>
#include <sstream>
#include <system_error>
#include <utility>

#include "tensor/error.h"

namespace siglip2 {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kAlignment = 64;

struct Header {
  char magic[8] = {'S', 'L', '2', 'P', 'A', 'C', 'K', '1'};
  std::uint64_t file_bytes = 0;
  std::uint64_t index_bytes = 0;
  std::uint64_t index_hash = 0;
  char zeros[32] = {};
};
static_assert(sizeof(Header) == kAlignment);

std::uint64_t round_up(std::uint64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

std::uint64_t hash_of(const char* data, std::size_t count) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (std::size_t i = 0; i < count; ++i)
    hash = (hash ^ static_cast<unsigned char>(data[i])) * 0x100000001b3;
  return hash;
}

constexpr const char* kStoreSuffix = ".packed";
constexpr const char* kTemporarySuffix = ".tmp";

// Of what TemporaryFile makes: NAME.packed.HEXADECIMAL.tmp. The folder may hold anything else of anybody's.
bool is_temporary(const std::string& name) {
  const std::size_t store = name.rfind(kStoreSuffix);
  if (store == std::string::npos || !name.ends_with(kTemporarySuffix)) return false;
  const std::size_t first = store + std::strlen(kStoreSuffix);
  const std::size_t end = name.find_last_not_of("0123456789abcdef", name.size() - std::strlen(kTemporarySuffix) - 1);
  return end == first && name[first] == '.';
}

// A file that is removed unless it is renamed.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& path) {
    // Numbers of processes return, above all in containers, and names of files that were left behind with them.
    std::random_device random;
    std::ostringstream name;
    name << path << '.' << std::hex << std::setfill('0') << std::setw(8) << random() << std::setw(8) << random()
         << kTemporarySuffix;
    name_ = name.str();
    file_ = open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file_ < 0) fail();
  }
  ~TemporaryFile() {
    if (file_ >= 0) close(file_);
    if (!name_.empty()) unlink(name_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write_all(const void* data, std::size_t bytes) {
    const char* next = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t written = write(file_, next, bytes);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail();
      next += written;
      bytes -= static_cast<std::size_t>(written);
    }
  }
  void move_to(const std::string& path) {
    if (fsync(file_) != 0) fail();
    if (rename(name_.c_str(), path.c_str()) != 0) fail();
    name_.clear();
  }

 private:
  [[noreturn]] static void fail() { throw std::system_error(errno, std::generic_category()); }

  std::string name_;
  int file_ = -1;
};

// What processes that ended in the middle of writing left behind.
void remove_abandoned(const fs::path& folder) {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    std::error_code ignored;
    if (!is_temporary(entry.path().filename().string()) || !fs::is_regular_file(entry.symlink_status(ignored)))
      continue;
    const auto age = fs::file_time_type::clock::now() - entry.last_write_time(ignored);
    if (!ignored && age > std::chrono::hours(1)) fs::remove(entry.path(), ignored);
  }
}

}  // namespace

PackedStore::PackedStore(std::string path, std::string key) : path_(std::move(path)), key_(std::move(key)) {
  try {
    read();
  } catch (const std::exception&) {
    file_.reset();
    kept_.clear();
  }
}

void PackedStore::read() {
  std::error_code missing;
  const std::uint64_t size = fs::file_size(path_, missing);
  if (missing || size < sizeof(Header)) return;
  auto file = std::make_unique<MappedFile>(path_, 0, size);
  Header header;
  std::memcpy(&header, file->at(0), sizeof(header));
  if (std::memcmp(header.magic, Header().magic, sizeof(header.magic)) != 0) return;
  if (header.file_bytes != size || header.index_bytes > size - sizeof(Header)) return;
  const char* const index = file->at(sizeof(Header));
  if (hash_of(index, header.index_bytes) != header.index_hash) return;

  std::istringstream lines(std::string(index, header.index_bytes));
  std::string line;
  if (!std::getline(lines, line) || line != key_) return;
  while (std::getline(lines, line)) {
    std::istringstream fields(line);
    std::string name;
    std::uint64_t offset = 0, bytes = 0;
    if (!std::getline(fields, name, '\t') || !(fields >> offset >> bytes)) continue;
    if (offset % kAlignment != 0 || offset > size || bytes > size - offset) continue;
    kept_[name] = {name, file->at(offset), static_cast<std::size_t>(bytes)};
  }
  file_ = std::move(file);
}

const void* PackedStore::find(const std::string& name, std::size_t bytes) const {
  const auto found = kept_.find(name);
  return found != kept_.end() && found->second.bytes == bytes ? found->second.data : nullptr;
}

void PackedStore::add(const std::string& name, const void* data, std::size_t bytes) {
  added_.push_back({name, data, bytes});
}

void PackedStore::save() noexcept {
  try {
    if (!added_.empty()) write();
  } catch (const std::exception&) {
    // A folder that cannot be written to, or a full disk.
  }
  added_.clear();
}

void PackedStore::write() const {
  // Those of a file that lacked some are written again.
  std::vector<Entry> entries = added_;
  for (const auto& [name, entry] : kept_)
    entries.push_back(entry);
  // Offsets depend on the length of the index, and are written with as many digits whatever they are.
  constexpr std::uint64_t kDigits = 20;
  std::uint64_t index_bytes = key_.size() + 1;
  for (const Entry& entry : entries)
    index_bytes += entry.name.size() + 1 + kDigits + 1 + kDigits + 1;
  const auto padded = [](std::uint64_t number) {
    const std::string digits = std::to_string(number);
    return std::string(kDigits - digits.size(), ' ') + digits;
  };
  std::uint64_t offset = round_up(sizeof(Header) + index_bytes);
  std::string index = key_ + '\n';
  for (const Entry& entry : entries) {
    index += entry.name + '\t' + padded(offset) + ' ' + padded(entry.bytes) + '\n';
    offset = round_up(offset + entry.bytes);
  }
  Header header;
  header.file_bytes = offset;
  header.index_bytes = index.size();
  header.index_hash = hash_of(index.data(), index.size());

  const fs::path folder = fs::path(path_).parent_path();
  fs::create_directories(folder);
  remove_abandoned(folder);
  TemporaryFile file(path_);
  const char zeros[kAlignment] = {};
  file.write_all(&header, sizeof(header));
  file.write_all(index.data(), index.size());
  file.write_all(zeros, round_up(sizeof(Header) + index.size()) - sizeof(Header) - index.size());
  for (const Entry& entry : entries) {
    file.write_all(entry.data, entry.bytes);
    file.write_all(zeros, round_up(entry.bytes) - entry.bytes);
  }
  file.move_to(path_);
}

void PackedStore::check_length() const {
  if (file_ != nullptr) file_->check_length();
}

}  // namespace siglip2
