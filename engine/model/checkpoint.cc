#include "engine/model/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "engine/json/json_fields.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

using nlohmann::json;

constexpr int64_t kMaxIndexBytes = int64_t{256} << 20;
constexpr size_t kMaxShards = 4096;  // one mapping each; the kernel's limit is 65,530

// A plain file name: an index must not reach outside its folder.
bool IsShardName(const std::string& name) {
  const auto is_plain = [](char c) { return c > 0x20 && c < 0x7f && c != '/' && c != '\\'; };
  return absl::EndsWith(name, ".safetensors") && std::all_of(name.begin(), name.end(), is_plain);
}

// Tensor to shard, as the index has it.
absl::StatusOr<std::map<std::string, std::string>> ReadWeightMap(const std::string& index_path) {
  GATEHOUSE_ASSIGN_OR_RETURN(const json index, ReadJsonObjectFile(index_path, kMaxIndexBytes));
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object() || weight_map->empty()) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s: no weight_map, expected an object of tensor names to file names", index_path));
  }
  std::map<std::string, std::string> shard_of;
  for (const auto& [name, shard] : weight_map->items()) {
    if (!shard.is_string() || !IsShardName(shard.get<std::string>())) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "%s: weight_map: %s: got %s, expected the plain name of a .safetensors file", index_path,
          Printable(name), Printable(shard.dump(-1, ' ', true))));
    }
    shard_of.emplace(name, shard.get<std::string>());
  }
  return shard_of;
}

absl::Status CheckShardAgainst(const std::map<std::string, std::string>& shard_of,
                               const std::string& shard, const SafetensorsFile& file) {
  for (const auto& [name, tensor] : file.tensors()) {
    const auto listed = shard_of.find(name);
    if (listed == shard_of.end() || listed->second != shard) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "%s: %s: unexpected here, expected %s", file.path(), Printable(name),
          listed == shard_of.end() ? "every tensor to be listed in the index"
                                   : "in " + listed->second + " as the index says"));
    }
  }
  for (const auto& [name, listed_shard] : shard_of) {
    if (listed_shard == shard && file.tensors().count(name) == 0) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "%s: %s: missing, expected here as the index says", file.path(), Printable(name)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<DType> UsableDType(std::string_view name) {
  if (name == "F32") return DType::kF32;
  if (name == "BF16") return DType::kBF16;
  if (name == "F16") return DType::kF16;
  return absl::NotFoundError("");
}

// The lowest exponent bit of each value in a word of 8 bytes. All exponent bits set means infinite
// or not a number, and exactly then adding the lowest one carries into the sign bit.
uint64_t LowestExponentBits(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0x0080'0000'0080'0000;
    case DType::kBF16:
      return 0x0080'0080'0080'0080;
    case DType::kF16:
      return 0x0400'0400'0400'0400;
  }
  return 0;
}

// Whether one of `num_bytes` bytes' values is not finite. Eight bytes at a time: every weight of
// the model passes through here.
bool HasNonFinite(const char* bytes, int64_t num_bytes, DType dtype) {
  const uint64_t lowest = LowestExponentBits(dtype);
  const uint64_t sign = dtype == DType::kF32 ? 0x8000'0000'8000'0000 : 0x8000'8000'8000'8000;
  const uint64_t exponent = sign - lowest;
  uint64_t carried = 0, word = 0;
  int64_t i = 0;
  for (; i + 8 <= num_bytes; i += 8) {
    std::memcpy(&word, bytes + i, 8);
    carried |= (word & exponent) + lowest;
  }
  word = 0;
  std::memcpy(&word, bytes + i, num_bytes - i);
  carried |= (word & exponent) + lowest;
  return (carried & sign) != 0;
}

}  // namespace

int64_t FindNonFinite(const WeightView& view) {
  constexpr int64_t kBlockValues = 16384;
  const int64_t count = view.num_rows * view.num_cols;
  const auto value_bytes = static_cast<int64_t>(DTypeBytes(view.dtype));
  const char* bytes = static_cast<const char*>(view.data);
  const WeightView flat = {view.data, view.dtype, 1, count};
  for (int64_t begin = 0; begin < count; begin += kBlockValues) {
    const int64_t end = std::min(begin + kBlockValues, count);
    const char* block = bytes + begin * value_bytes;
    if (!HasNonFinite(block, (end - begin) * value_bytes, view.dtype)) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (!std::isfinite(flat.at(0, i))) return i;
    }
  }
  return -1;
}

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& model_dir) {
  const std::string index_path = model_dir + "/model.safetensors.index.json";
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(model_dir + "/model.safetensors");
  if (file.ok()) {
    Checkpoint checkpoint;
    checkpoint.listing_path_ = file->path();
    checkpoint.AddFile(*std::move(file));
    return checkpoint;
  }
  if (!absl::IsNotFound(file.status())) return file.status();
  absl::StatusOr<Checkpoint> checkpoint = OpenShards(model_dir, index_path);
  if (absl::IsNotFound(checkpoint.status())) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s: no weights, expected model.safetensors or model.safetensors.index.json", model_dir));
  }
  return checkpoint;
}

absl::StatusOr<Checkpoint> Checkpoint::OpenShards(const std::string& model_dir,
                                                  const std::string& index_path) {
  using ShardOf = std::map<std::string, std::string>;
  GATEHOUSE_ASSIGN_OR_RETURN(const ShardOf shard_of, ReadWeightMap(index_path));
  std::set<std::string> shards;
  for (const auto& [name, shard] : shard_of) shards.insert(shard);
  if (shards.size() > kMaxShards) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: weight_map: got %d files, expected at most %d", index_path,
                        shards.size(), kMaxShards));
  }
  Checkpoint checkpoint;
  checkpoint.listing_path_ = index_path;
  for (const std::string& shard : shards) {
    absl::StatusOr<SafetensorsFile> file =
        SafetensorsFile::Open(absl::StrFormat("%s/%s", model_dir, shard));
    if (absl::IsNotFound(file.status())) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "%s/%s: no such file, expected as %s lists it", model_dir, shard, index_path));
    }
    GATEHOUSE_RETURN_IF_ERROR(file.status());
    GATEHOUSE_RETURN_IF_ERROR(CheckShardAgainst(shard_of, shard, *file));
    checkpoint.AddFile(*std::move(file));
  }
  return checkpoint;
}

void Checkpoint::AddFile(SafetensorsFile file) {
  files_.push_back(std::move(file));
  const int file_idx = static_cast<int>(files_.size()) - 1;
  for (const auto& [name, tensor] : files_.back().tensors()) {
    locations_.emplace(name, Location{file_idx, &tensor});
  }
}

bool Checkpoint::Has(std::string_view name) const {
  return locations_.find(name) != locations_.end();
}

std::vector<std::string> Checkpoint::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, location] : locations_) names.push_back(name);
  return names;
}

std::vector<std::string> Checkpoint::Files() const {
  std::vector<std::string> paths;
  if (files_.empty() || files_.front().path() != listing_path_) paths.push_back(listing_path_);
  for (const SafetensorsFile& file : files_) paths.push_back(file.path());
  return paths;
}

const std::string& Checkpoint::FileOf(std::string_view name) const {
  const auto it = locations_.find(name);
  return it == locations_.end() ? listing_path_ : files_[it->second.file_idx].path();
}

absl::StatusOr<WeightView> Checkpoint::Tensor(std::string_view name,
                                              const std::vector<int64_t>& shape) const {
  const auto it = locations_.find(name);
  if (it == locations_.end()) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s: %s: missing, expected %s", FileOf(name), Printable(name), ShapeText(shape)));
  }
  const StoredTensor& tensor = *it->second.tensor;
  if (tensor.shape != shape) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: %s: shape: got %s, expected %s", FileOf(name), Printable(name),
                        Printable(ShapeText(tensor.shape)), ShapeText(shape)));
  }
  const absl::StatusOr<DType> dtype = UsableDType(tensor.dtype);
  if (!dtype.ok()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: %s: dtype: got %s, expected F32, BF16 or F16", FileOf(name),
                        Printable(name), tensor.dtype));
  }
  WeightView view;
  view.data = files_[it->second.file_idx].BytesOf(tensor).data();
  view.dtype = *dtype;
  view.num_rows = std::accumulate(shape.begin(), shape.end() - 1, int64_t{1}, std::multiplies<>());
  view.num_cols = shape.back();
  return view;
}

absl::Status Checkpoint::CheckFinite(std::string_view name) const {
  const auto it = locations_.find(name);
  const std::vector<int64_t> shape =
      it == locations_.end() ? std::vector<int64_t>{1} : it->second.tensor->shape;
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  GATEHOUSE_ASSIGN_OR_RETURN(WeightView view, Tensor(name, shape));
  view.num_rows = 1;
  view.num_cols = count;
  const int64_t found = FindNonFinite(view);
  if (found < 0) return absl::OkStatus();
  const float value = view.at(0, found);
  return absl::FailedPreconditionError(absl::StrFormat(
      "%s: %s: got %s at value %d of %s, expected finite numbers", FileOf(name), Printable(name),
      std::isnan(value) ? "a NaN" : "an infinity", found, ShapeText(shape)));
}

void Checkpoint::DropPages() const {
  for (const SafetensorsFile& file : files_) file.DropPages();
}

}  // namespace gatehouse
