// One safetensors file, mapped and checked whole before anything reads from it.
//
//   8 bytes   little-endian length of the header
//   header    JSON {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [begin, end]}, ..},
//             perhaps "__metadata__", perhaps padded with spaces
//   data      the tensors, row-major, side by side without hole or overlap, in any order; the
//             format promises no alignment
//
// Immutable after Open, any thread; tensors and bytes live as long as the file object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/mapped_file.h"

namespace gatehouse {

struct StoredTensor {
  std::string dtype;           // as the file spells it, one that the format knows
  std::vector<int64_t> shape;  // empty: a scalar
  uint64_t begin = 0;          // bytes into the data section
  uint64_t end = 0;
};

std::string ShapeText(const std::vector<int64_t>& shape);  // "[2, 3]"

class SafetensorsFile {
 public:
  using Tensors = std::map<std::string, StoredTensor, std::less<>>;

  // NOT_FOUND when there is no such file; else FAILED_PRECONDITION "<file>: <problem>, expected
  // <what>" or "<file>: <tensor>: <problem>: got .., expected ..".
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const Tensors& tensors() const { return tensors_; }
  std::span<const std::byte> BytesOf(const StoredTensor& tensor) const {
    return data_.subspan(tensor.begin, tensor.end - tensor.begin);
  }
  void DropPages() const { file_.DropPages(); }

 private:
  SafetensorsFile(std::string path, MappedFile file, Tensors tensors,
                  std::span<const std::byte> data);

  std::string path_;
  MappedFile file_;
  Tensors tensors_;
  std::span<const std::byte> data_;
};

}  // namespace gatehouse
