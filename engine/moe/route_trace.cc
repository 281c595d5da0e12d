#include "engine/moe/route_trace.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr std::string_view kMagic = "GHROUTE1";
constexpr size_t kHashChars = 16;
constexpr uint32_t kMaxRows = 1 << 22;  // of a step: a damaged count must not ask for memory
constexpr uint32_t kMaxExperts = 1 << 13;
constexpr uint32_t kMaxLayers = 1 << 10;
constexpr uint16_t kNoExpert = 0xffff;
constexpr size_t kRowBytes = 9;

template <typename T>
void Put(T value, std::string& out) {
  for (size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<char>(value >> (8 * i) & 0xff));
}

template <typename T>
T Get(const char* bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value | static_cast<T>(static_cast<uint8_t>(bytes[i])) << (8 * i));
  }
  return value;
}

uint16_t ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float FromBf16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

}  // namespace

std::string EncodeTraceHeader(const TraceHeader& header) {
  std::string out(kMagic);
  out += header.model_hash;
  out.resize(kMagic.size() + kHashChars, ' ');
  for (const int32_t number :
       {header.num_experts, header.num_moe_layers, header.top_k, header.num_ranked}) {
    Put(static_cast<uint32_t>(number), out);
  }
  return out;
}

std::string EncodeTraceStep(const TraceStep& step) {
  std::string out;
  out.reserve(4 + step.rows.size() * kRowBytes + step.ranked_ids.size() * 4);
  Put(static_cast<uint32_t>(step.rows.size()), out);
  for (const TraceRow& row : step.rows) {
    Put(row.request, out);
    Put(row.position, out);
    Put(static_cast<uint8_t>(row.decode), out);
  }
  for (size_t i = 0; i < step.ranked_ids.size(); ++i) {
    const int32_t id = step.ranked_ids[i];
    Put(id < 0 ? kNoExpert : static_cast<uint16_t>(id), out);
    Put(id < 0 ? uint16_t{0} : ToBf16(step.gate[i]), out);
  }
  return out;
}

absl::Status TraceReader::Error(std::string_view what) const {
  return absl::InvalidArgumentError(absl::StrFormat("%s: byte %d: %s", name_, offset_, what));
}

absl::Status TraceReader::Read(std::string& bytes, size_t count) {
  bytes.resize(count);
  stream_->read(bytes.data(), static_cast<std::streamsize>(count));
  const auto got = static_cast<size_t>(stream_->gcount());
  if (got < count) {
    return Error(absl::StrFormat("the file ends, expected %d bytes more", count - got));
  }
  offset_ += static_cast<int64_t>(count);
  return absl::OkStatus();
}

absl::StatusOr<TraceReader> TraceReader::Open(std::istream& stream, const std::string& name) {
  TraceReader reader(stream, name);
  std::string bytes;
  GATEHOUSE_RETURN_IF_ERROR(reader.Read(bytes, kMagic.size() + kHashChars + 16));
  reader.offset_ = 0;
  if (!bytes.starts_with(kMagic)) return reader.Error("got no route trace, expected GHROUTE1");
  TraceHeader& header = reader.header_;
  header.model_hash = bytes.substr(kMagic.size(), kHashChars);
  const char* numbers = bytes.data() + kMagic.size() + kHashChars;
  const auto experts = Get<uint32_t>(numbers), layers = Get<uint32_t>(numbers + 4),
             top_k = Get<uint32_t>(numbers + 8), ranked = Get<uint32_t>(numbers + 12);
  reader.offset_ = static_cast<int64_t>(kMagic.size() + kHashChars);
  if (experts < 1 || experts > kMaxExperts || layers < 1 || layers > kMaxLayers || top_k < 1 ||
      top_k > ranked || ranked > experts) {
    return reader.Error(
        absl::StrFormat("got %d experts, %d layers, top %d of %d ranks: no such model", experts,
                        layers, top_k, ranked));
  }
  reader.offset_ += 16;
  header.num_experts = static_cast<int32_t>(experts);
  header.num_moe_layers = static_cast<int32_t>(layers);
  header.top_k = static_cast<int32_t>(top_k);
  header.num_ranked = static_cast<int32_t>(ranked);
  return reader;
}

absl::StatusOr<bool> TraceReader::Next(TraceStep& step) {
  if (stream_->peek() == std::istream::traits_type::eof()) return false;
  std::string bytes;
  GATEHOUSE_RETURN_IF_ERROR(Read(bytes, 4));
  const auto num_rows = Get<uint32_t>(bytes.data());
  if (num_rows < 1 || num_rows > kMaxRows) {
    offset_ -= 4;
    return Error(absl::StrFormat("got a step of %d rows, expected 1 to %d", num_rows, kMaxRows));
  }
  step = TraceStep();
  for (uint32_t row = 0; row < num_rows; ++row) {
    GATEHOUSE_RETURN_IF_ERROR(Read(bytes, kRowBytes));
    step.rows.push_back({.request = Get<uint32_t>(bytes.data()),
                         .position = Get<uint32_t>(bytes.data() + 4),
                         .decode = bytes[8] != 0});
  }
  const auto row_ranks = static_cast<size_t>(header_.num_ranked);
  for (size_t row = 0; row < size_t{num_rows} * header_.num_moe_layers; ++row) {
    const int64_t begin = offset_;
    GATEHOUSE_RETURN_IF_ERROR(Read(bytes, row_ranks * 4));
    for (size_t rank = 0; rank < row_ranks; ++rank) {
      const auto id = Get<uint16_t>(bytes.data() + rank * 4);
      const float p = FromBf16(Get<uint16_t>(bytes.data() + rank * 4 + 2));
      if ((id != kNoExpert && id >= header_.num_experts) || !(p >= 0 && p <= 1e30f)) {
        offset_ = begin + static_cast<int64_t>(rank * 4);
        return Error(
            absl::StrFormat("got expert %d with P %g, expected one below %d and a P from 0", id, p,
                            header_.num_experts));
      }
      step.ranked_ids.push_back(id == kNoExpert ? -1 : id);
      step.gate.push_back(p);
    }
  }
  return true;
}

}  // namespace gatehouse
