// How ExecuTorch reads a program and takes memory: files read in parts, allocations from the heap.
#ifndef MVTOOL_EXECUTORCH_MEMORY_H
#define MVTOOL_EXECUTORCH_MEMORY_H

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <executorch/runtime/core/data_loader.h>
#include <executorch/runtime/core/error.h>
#include <executorch/runtime/core/freeable_buffer.h>
#include <executorch/runtime/core/memory_allocator.h>
#include <executorch/runtime/core/result.h>

#include "failure.h"

namespace runner {

using executorch::runtime::DataLoader;
using executorch::runtime::Error;
using executorch::runtime::FreeableBuffer;
using executorch::runtime::MemoryAllocator;
using executorch::runtime::Result;

constexpr size_t ALIGNMENT = 64;

inline void check(Error error, exit_status kind, const char* what) {
  if (error != Error::Ok) fail(kind, "ExecuTorch failed to %s (error 0x%x)", what, static_cast<unsigned>(error));
}

inline void* aligned(size_t bytes) {
  void* memory = nullptr;
  size_t whole = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (posix_memalign(&memory, ALIGNMENT, whole ? whole : ALIGNMENT) != 0) {
    fail(EXIT_RUN, "there is no memory for %zu bytes", bytes);
  }
  std::memset(memory, 0, whole ? whole : ALIGNMENT);
  return memory;
}

// Reads parts of the file when they are asked for and lets go of them when told; a mapped file would keep them all.
class FileLoader final : public DataLoader {
 public:
  explicit FileLoader(const char* path) : file_(open(path, O_RDONLY | O_CLOEXEC)) {
    struct stat facts;
    if (file_ < 0 || fstat(file_, &facts) != 0) fail(EXIT_IO, "%s cannot be opened: %s", path, std::strerror(errno));
    size_ = static_cast<size_t>(facts.st_size);
  }

  Result<FreeableBuffer> load(size_t offset, size_t size, const SegmentInfo& info) const override {
    void* memory = aligned(size);
    Error error = load_into(offset, size, info, memory);
    if (error != Error::Ok) {
      std::free(memory);
      return error;
    }
    return FreeableBuffer(memory, size, [](void*, void* data, size_t) { std::free(data); });
  }

  Error load_into(size_t offset, size_t size, const SegmentInfo&, void* buffer) const override {
    if (offset > size_ || size > size_ - offset) return Error::InvalidProgram;
    auto* to = static_cast<char*>(buffer);
    while (size > 0) {
      ssize_t got = pread(file_, to, size, static_cast<off_t>(offset));
      if (got <= 0) return Error::AccessFailed;
      to += got;
      offset += static_cast<size_t>(got);
      size -= static_cast<size_t>(got);
    }
    return Error::Ok;
  }

  Result<size_t> size() const override { return size_; }

 private:
  int file_;
  size_t size_ = 0;
};

// The runtime frees nothing of a loaded method before the process ends.
class HeapAllocator final : public MemoryAllocator {
 public:
  HeapAllocator() : MemoryAllocator(0, nullptr) {}
  void* allocate(size_t size, size_t alignment = kDefaultAlignment) override {
    void* memory = nullptr;
    size_t usable = alignment < sizeof(void*) ? sizeof(void*) : alignment;
    return posix_memalign(&memory, usable, size ? size : 1) == 0 ? memory : nullptr;
  }
};

// Memory that operators and delegates use within one call; the runtime resets it after each.
class ScratchAllocator final : public MemoryAllocator {
 public:
  ScratchAllocator() : MemoryAllocator(0, nullptr) {}
  void* allocate(size_t size, size_t alignment = kDefaultAlignment) override {
    void* memory = nullptr;
    size_t usable = alignment < sizeof(void*) ? sizeof(void*) : alignment;
    if (posix_memalign(&memory, usable, size ? size : 1) != 0) return nullptr;
    taken_.push_back(memory);
    return memory;
  }
  void reset() override {
    for (void* memory : taken_) std::free(memory);
    taken_.clear();
  }

 private:
  std::vector<void*> taken_;
};

}  // namespace runner

#endif
