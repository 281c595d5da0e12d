#include "engine/model/safetensors.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/json/json_fields.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

using nlohmann::json;

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

std::optional<int> DTypeBits(std::string_view dtype) {
  static constexpr std::pair<std::string_view, int> kBits[] = {
      {"F32", 32},    {"BF16", 16},   {"F16", 16},        {"F64", 64},        {"BOOL", 8},
      {"U8", 8},      {"I8", 8},      {"I16", 16},        {"U16", 16},        {"I32", 32},
      {"U32", 32},    {"I64", 64},    {"U64", 64},        {"C64", 64},        {"F8_E5M2", 8},
      {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E5M2FNUZ", 8}, {"F8_E4M3FNUZ", 8}, {"F6_E2M3", 6},
      {"F6_E3M2", 6}, {"F4", 4}};
  for (const auto& [name, bits] : kBits) {
    if (name == dtype) return bits;
  }
  return std::nullopt;
}

// Where a problem is: the file, and the tensor if there is one.
struct Place {
  const std::string& file;
  std::string_view tensor;

  template <typename... Args>
  absl::Status Error(const absl::FormatSpec<Args...>& format, const Args&... args) const {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: %s: %s", file, Printable(tensor), absl::StrFormat(format, args...)));
  }
};

std::string Text(const json& value) { return Printable(value.dump(-1, ' ', true)); }

absl::StatusOr<std::string_view> HeaderText(const std::string& path,
                                            std::span<const std::byte> bytes) {
  if (bytes.size() < kLengthBytes) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: got %d bytes, expected at least the %d of the header length", path,
                        bytes.size(), kLengthBytes));
  }
  uint64_t header_bytes = 0;
  for (uint64_t i = 0; i < kLengthBytes; ++i) {
    header_bytes |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  }
  if (header_bytes > kMaxHeaderBytes) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: header length: got %d bytes, expected at most %d", path, header_bytes,
                        kMaxHeaderBytes));
  }
  if (header_bytes > bytes.size() - kLengthBytes) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: header length: got %d bytes, expected at most the %d that follow",
                        path, header_bytes, bytes.size() - kLengthBytes));
  }
  return std::string_view(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, header_bytes);
}

// `num_bytes` of a tensor, or an error where the shape cannot be.
absl::StatusOr<uint64_t> SizeOf(const Place& place, const StoredTensor& tensor) {
  const std::optional<int> bits = DTypeBits(tensor.dtype);
  if (!bits.has_value()) {
    return place.Error("dtype: got \"%s\", expected one of the safetensors format",
                       Printable(tensor.dtype));
  }
  uint64_t num_bits = *bits;
  for (const int64_t extent : tensor.shape) {
    if (__builtin_mul_overflow(num_bits, static_cast<uint64_t>(extent), &num_bits)) {
      return place.Error("shape: got %s, expected fewer than 2^64 bits",
                         Printable(ShapeText(tensor.shape)));
    }
  }
  if (num_bits % 8 != 0) {
    return place.Error("shape: got %s of %d-bit values, expected whole bytes",
                       Printable(ShapeText(tensor.shape)), *bits);
  }
  return num_bits / 8;
}

absl::StatusOr<StoredTensor> ReadEntry(const Place& place, const json& entry, uint64_t data_bytes) {
  if (!entry.is_object()) return place.Error("got %s, expected an object", Text(entry));
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!entry.contains(key)) return place.Error("no %s, expected one", key);
  }
  const json &dtype = entry["dtype"], &shape = entry["shape"], &offsets = entry["data_offsets"];
  StoredTensor tensor;
  if (!dtype.is_string()) return place.Error("dtype: got %s, expected a string", Text(dtype));
  tensor.dtype = dtype.get<std::string>();
  const auto is_extent = [](const json& value) {
    return value.is_number_unsigned() && value.get<uint64_t>() <= uint64_t{INT64_MAX};
  };
  if (!shape.is_array() || !std::all_of(shape.begin(), shape.end(), is_extent)) {
    return place.Error("shape: got %s, expected a list of sizes", Text(shape));
  }
  for (const json& extent : shape) tensor.shape.push_back(extent.get<int64_t>());
  if (!offsets.is_array() || offsets.size() != 2 || !is_extent(offsets[0]) ||
      !is_extent(offsets[1])) {
    return place.Error("data_offsets: got %s, expected [begin, end]", Text(offsets));
  }
  tensor.begin = offsets[0].get<uint64_t>();
  tensor.end = offsets[1].get<uint64_t>();
  if (tensor.begin > tensor.end || tensor.end > data_bytes) {
    return place.Error("data_offsets: got [%d, %d], expected begin <= end <= %d bytes of data",
                       tensor.begin, tensor.end, data_bytes);
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const uint64_t num_bytes, SizeOf(place, tensor));
  if (num_bytes != tensor.end - tensor.begin) {
    return place.Error("data_offsets: got %d bytes, expected %d for %s %s",
                       tensor.end - tensor.begin, num_bytes, tensor.dtype,
                       Printable(ShapeText(tensor.shape)));
  }
  return tensor;
}

// Every byte of the data belongs to exactly one tensor.
absl::Status CheckCover(const std::string& path, const SafetensorsFile::Tensors& tensors,
                        uint64_t data_bytes) {
  std::vector<const SafetensorsFile::Tensors::value_type*> in_order;
  for (const auto& entry : tensors) in_order.push_back(&entry);
  std::sort(in_order.begin(), in_order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t covered = 0;
  for (const auto* entry : in_order) {
    const StoredTensor& tensor = entry->second;
    if (tensor.begin != covered) {
      return Place{path, entry->first}.Error(
          "data_offsets: got [%d, %d], which %s, expected to begin at %d", tensor.begin, tensor.end,
          tensor.begin < covered ? "overlaps another tensor" : "leaves a hole", covered);
    }
    covered = tensor.end;
  }
  if (covered != data_bytes) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s: got %d bytes of data, expected the %d that tensors cover", path, data_bytes, covered));
  }
  return absl::OkStatus();
}

absl::Status CheckMetadata(const std::string& path, const json& metadata) {
  const bool all_strings =
      metadata.is_object() && std::all_of(metadata.begin(), metadata.end(),
                                          [](const json& value) { return value.is_string(); });
  if (all_strings) return absl::OkStatus();
  return Place{path, "__metadata__"}.Error("got %s, expected an object of strings", Text(metadata));
}

}  // namespace

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrFormat("[%s]", absl::StrJoin(shape, ", "));
}

SafetensorsFile::SafetensorsFile(std::string path, MappedFile file, Tensors tensors,
                                 std::span<const std::byte> data)
    : path_(std::move(path)), file_(std::move(file)), tensors_(std::move(tensors)), data_(data) {}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  GATEHOUSE_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string_view text, HeaderText(path, file.bytes()));
  GATEHOUSE_ASSIGN_OR_RETURN(const json header, ParseJsonObject(text, path + ": header"));
  const std::span<const std::byte> data = file.bytes().subspan(kLengthBytes + text.size());
  Tensors tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      GATEHOUSE_RETURN_IF_ERROR(CheckMetadata(path, entry));
      continue;
    }
    GATEHOUSE_ASSIGN_OR_RETURN(StoredTensor tensor,
                               ReadEntry(Place{path, name}, entry, data.size()));
    tensors.emplace(name, std::move(tensor));
  }
  GATEHOUSE_RETURN_IF_ERROR(CheckCover(path, tensors, data.size()));
  return SafetensorsFile(path, std::move(file), std::move(tensors), data);
}

}  // namespace gatehouse
