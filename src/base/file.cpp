#include "finetune/base/file.h"

#include "finetune/base/write_fault.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

namespace finetune {

namespace fs = std::filesystem;

namespace {

/// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

/// Opens for reading and checks that it is a regular file; `size` receives its length.
int open_regular(const fs::path& path, ErrorKind kind, std::size_t& size) {
  // O_NONBLOCK: opening a FIFO must not hang before the type is known.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail(kind, "{}: cannot be opened: {}", path.string(), std::strerror(errno));
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd);
    fail(kind, "{}: is {}; expected a regular file", path.string(),
         S_ISDIR(status.st_mode) ? "a folder" : "not a file");
  }
  size = static_cast<std::size_t>(status.st_size);
  return fd;
}

[[noreturn]] void fail_write(const fs::path& path, const char* action) {
  fail(ErrorKind::resource, "{}: {} failed: {}", path.string(), action, std::strerror(errno));
}

void write_all(int fd, const fs::path& path, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write_fault() ? -1 : ::write(fd, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      fail_write(path, "writing");
    }
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

std::string hex_of(const XXH128_hash_t& hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

/// True when the name still leads to the file that is open.
bool is_named(int fd, const fs::path& path) {
  struct stat opened {};
  struct stat named {};
  return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
         opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

/// Opens an empty file for one writer: another of the same name waits until it has been renamed,
/// and then makes its own. Where a file system has no locks, the last to rename wins.
int open_alone(const fs::path& path) {
  for (;;) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return fd;
    ::flock(fd, LOCK_EX);
    const bool alone = is_named(fd, path);
    if (alone && ::ftruncate(fd, 0) == 0) return fd;
    ::close(fd);
    if (alone) return -1;
  }
}

/// A rename is durable only once the folder itself is flushed.
void flush_folder(const fs::path& folder) {
  const Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() >= 0) ::fsync(fd.get());
}

}  // namespace

std::string read_file(const fs::path& path, ErrorKind kind) {
  std::size_t size = 0;
  const Descriptor fd(open_regular(path, kind, size));
  std::string content(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const ssize_t count = ::read(fd.get(), content.data() + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(kind, "{}: cannot be read: {}", path.string(), std::strerror(errno));
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  content.resize(done);
  return content;
}

MappedFile::MappedFile(const fs::path& path, ErrorKind kind) : path_(path) {
  const Descriptor fd(open_regular(path, kind, size_));
  if (size_ == 0) return;
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (address == MAP_FAILED) {
    fail(errno == ENOMEM ? ErrorKind::resource : kind, "{}: cannot be mapped: {}", path.string(),
         std::strerror(errno));
  }
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

void MappedFile::release(std::span<const std::byte> part) const {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<std::uintptr_t>(part.data());
  const std::uintptr_t begin = (first + page - 1) / page * page,
                       end = (first + part.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

void write_file_atomically(const fs::path& path,
                           const std::function<void(const WriteBytes&)>& fill) {
  const fs::path temporary = path.string() + ".tmp";
  const Descriptor fd(write_fault() ? -1 : open_alone(temporary));
  if (fd.get() < 0) fail_write(temporary, "creating");
  off_t written = 0;
  const auto write = [&](std::span<const std::byte> bytes) {
    write_all(fd.get(), temporary, bytes);
    // The disk begins at once: flushing a file of gigabytes at its end would wait as long again.
    ::sync_file_range(fd.get(), written, static_cast<off_t>(bytes.size()), SYNC_FILE_RANGE_WRITE);
    written += static_cast<off_t>(bytes.size());
  };
  try {
    fill(write);
    if (write_fault() || ::fsync(fd.get()) != 0) fail_write(temporary, "flushing");
    if (write_fault() || ::rename(temporary.c_str(), path.c_str()) != 0)
      fail_write(path, "renaming");
  } catch (...) {
    ::unlink(temporary.c_str());  // before its lock is given up
    throw;
  }
  flush_folder(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

void write_file_atomically(const fs::path& path, std::string_view content) {
  write_file_atomically(path, [&](const WriteBytes& write) {
    write(std::as_bytes(std::span(content.data(), content.size())));
  });
}

void make_folder(const fs::path& path) {
  std::error_code code;
  if (write_fault()) {
    code.assign(errno, std::generic_category());
  } else {
    fs::create_directories(path, code);
  }
  if (code) {
    fail(ErrorKind::resource, "{}: the folder cannot be created: {}", path.string(),
         code.message());
  }
  flush_folder(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

void remove_path(const fs::path& path) {
  std::error_code code;
  if (write_fault()) {
    code.assign(errno, std::generic_category());
  } else {
    fs::remove_all(path, code);
  }
  if (code) fail(ErrorKind::resource, "{}: cannot be removed: {}", path.string(), code.message());
}

AppendFile::AppendFile(const fs::path& path) : path_(path) { open(); }

AppendFile::~AppendFile() { ::close(fd_); }

void AppendFile::open() {
  const int fd =
      write_fault() ? -1 : ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) fail_write(path_, "opening");
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

void AppendFile::append(std::string_view piece) {
  struct stat opened {};
  if (!is_named(fd_, path_)) open();
  if (::fstat(fd_, &opened) != 0) fail_write(path_, "reading the size");
  try {
    write_all(fd_, path_, std::as_bytes(std::span(piece.data(), piece.size())));
  } catch (const Error&) {
    if (::ftruncate(fd_, opened.st_size) != 0) fail_write(path_, "taking back half a piece");
    throw;
  }
}

std::string content_hash(std::span<const std::byte> bytes) {
  return hex_of(XXH3_128bits(bytes.data(), bytes.size()));
}

std::string content_hash(std::string_view text) {
  return content_hash(std::as_bytes(std::span(text.data(), text.size())));
}

std::string file_hash(const fs::path& path, ErrorKind kind) {
  constexpr std::size_t kPart = std::size_t{16} << 20;
  const MappedFile file(path, kind);
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(),
                                                                              XXH3_freeState);
  if (state == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(state.get());
  for (std::size_t begin = 0; begin < file.bytes().size(); begin += kPart) {
    const auto part = file.bytes().subspan(begin, std::min(kPart, file.bytes().size() - begin));
    XXH3_128bits_update(state.get(), part.data(), part.size());
    file.release(part);  // a file of gigabytes is never resident as a whole
  }
  return hex_of(XXH3_128bits_digest(state.get()));
}

}  // namespace finetune
