#include "formats/byte_input.h"

#include "finetune/base/error.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

namespace finetune {

namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 18;
/// zlib: the largest window, in the gzip format.
constexpr int kGzipWindowBits = 15 + 16;

/// read(2) of at most `size` bytes; 0 at the end of the file.
std::size_t read_some(int descriptor, char* out, std::size_t size, const std::string& name) {
  ssize_t count = ::read(descriptor, out, size);
  while (count < 0 && errno == EINTR) count = ::read(descriptor, out, size);
  if (count < 0) fail(ErrorKind::data, "{}: cannot be read: {}", name, std::strerror(errno));
  return static_cast<std::size_t>(count);
}

std::string_view kind_of_file(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  return "a special file";
}

}  // namespace

ByteInput::ByteInput(const std::filesystem::path& path, std::string name)
    : name_(std::move(name)), buffer_(kBufferBytes) {
  // O_NONBLOCK: opening a pipe must not hang before the type is known.
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) {
    fail(ErrorKind::data, "{}: cannot be opened: {}; expected a JSON Lines file", name_,
         std::strerror(errno));
  }
  try {
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
      fail(ErrorKind::data, "{}: is {}; expected a regular file of JSON Lines", name_,
           kind_of_file(status.st_mode));
    }
    fill_buffer();
    if (size_ == 0) fail(ErrorKind::data, "{}:1: the file is empty; expected JSON Lines", name_);
    if (size_ >= 2 && buffer_[0] == '\x1f' && buffer_[1] == '\x8b') {
      packed_.swap(buffer_);
      buffer_.resize(kBufferBytes);
      gzip_ = std::make_unique<z_stream>();
      gzip_->next_in = reinterpret_cast<Bytef*>(packed_.data());
      gzip_->avail_in = static_cast<uInt>(size_);
      size_ = 0;
      begin_member();
    }
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

ByteInput::~ByteInput() {
  if (gzip_) inflateEnd(gzip_.get());
  ::close(descriptor_);
}

void ByteInput::skip_byte_order_mark() {
  for (const int byte : {0xEF, 0xBB, 0xBF}) {
    if (peek() != byte) return;
    get();
  }
  column_ = 1;
}

bool ByteInput::refill() { return gzip_ ? read_packed() : fill_buffer(); }

bool ByteInput::fill_buffer() {
  position_ = 0;
  size_ = read_some(descriptor_, buffer_.data(), buffer_.size(), name_);
  return size_ > 0;
}

void ByteInput::begin_member() {
  const int status = gzip_->state == nullptr ? inflateInit2(gzip_.get(), kGzipWindowBits)
                                             : inflateReset(gzip_.get());
  if (status != Z_OK) fail(ErrorKind::resource, "{}: no memory to unpack gzip data", name_);
  in_member_ = true;
}

bool ByteInput::read_packed() {
  position_ = size_ = 0;
  while (size_ == 0) {
    if (gzip_->avail_in == 0) {
      gzip_->next_in = reinterpret_cast<Bytef*>(packed_.data());
      gzip_->avail_in =
          static_cast<uInt>(read_some(descriptor_, packed_.data(), packed_.size(), name_));
      if (gzip_->avail_in == 0 && !in_member_) return false;
      if (gzip_->avail_in == 0) {
        fail(ErrorKind::data,
             "{}:{}: the gzip file ends too early; expected a whole file (copy it again)", name_,
             line_);
      }
    }
    // Several members may follow each other, and gzip itself allows zeros as padding after the last
    // one.
    if (!in_member_ && *gzip_->next_in == 0) {
      ++gzip_->next_in;
      --gzip_->avail_in;
      continue;
    }
    if (!in_member_) begin_member();
    gzip_->next_out = reinterpret_cast<Bytef*>(buffer_.data());
    gzip_->avail_out = static_cast<uInt>(buffer_.size());
    const int status = inflate(gzip_.get(), Z_NO_FLUSH);
    size_ = buffer_.size() - gzip_->avail_out;
    if (status == Z_STREAM_END) {
      in_member_ = false;
    } else if (status != Z_OK) {
      fail(ErrorKind::data, "{}:{}: the gzip data are damaged: {}", name_, line_,
           gzip_->msg == nullptr ? "unexpected data" : gzip_->msg);
    }
  }
  return true;
}

}  // namespace finetune
