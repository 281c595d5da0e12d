#include "engine/model/packed_cache.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_format.h"
#include "engine/json/json_fields.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

}  // namespace

PackedCache::PackedCache(const PackedCacheRequest& request, Backend& backend)
    : request_(request),
      backend_(backend),
      pool_(std::make_unique<ThreadPool>(backend.num_threads())),
      path_(absl::StrFormat("%s/%s.%s.%s.%s.packed", request.dir, request.model_name,
                            request.expert_format, request.dense_format,
                            std::string(backend.packed_layout()))) {
  header_.layout = std::string(backend.packed_layout());
  header_.expert_format = request.expert_format;
  header_.dense_format = request.dense_format;
  report_.file = path_;
}

PackedCache PackedCache::Open(const PackedCacheRequest& request, Backend& backend) {
  PackedCache cache(request, backend);
  absl::Status usable = absl::UnimplementedError("this back end has no layout to keep");
  if (!backend.packed_layout().empty()) usable = cache.Check();
  cache.report_.not_read = MessageOf(usable);
  if (!usable.ok()) cache.file_ = std::nullopt;
  return cache;
}

// Whether there is a file that was made from this checkpoint for what is wanted. If not, the
// checkpoint's checksums are taken here: before it is packed, so that a change in between shows.
absl::Status PackedCache::Check() {
  absl::StatusOr<PackedFile> file = PackedFile::Open(path_);
  absl::Status usable = file.status();
  if (usable.ok()) usable = CheckHeader(file->header());
  if (usable.ok()) {
    header_.checkpoint = file->header().checkpoint;
    file_ = *std::move(file);
    return usable;
  }
  absl::StatusOr<std::vector<FileStamp>> stamps = StampFiles(request_.model_files);
  if (!stamps.ok()) return stamps.status();
  for (size_t i = 0; i < stamps->size(); ++i) {
    GATEHOUSE_RETURN_IF_ERROR(ReadChecksum(request_.model_files[i], *pool_, (*stamps)[i]));
  }
  header_.checkpoint = *std::move(stamps);
  return usable;
}

absl::Status PackedCache::CheckHeader(const PackedHeader& found) {
  if (found.layout != header_.layout) {
    return absl::FailedPreconditionError(absl::StrFormat("it has the layout %s", found.layout));
  }
  if (found.expert_format != header_.expert_format || found.dense_format != header_.dense_format) {
    return absl::FailedPreconditionError(absl::StrFormat("it has %s experts and all else in %s",
                                                         found.expert_format, found.dense_format));
  }
  return CheckUnchanged(request_.model_files, *pool_, found.checkpoint);
}

absl::Status PackedCache::ReadNext(std::span<std::byte> to) {
  const size_t section_idx = header_.sections.size() - 1;
  const std::vector<PackedSection>& found = file_->header().sections;
  if (section_idx >= found.size()) {
    return absl::FailedPreconditionError(absl::StrFormat("it has %d sections only", found.size()));
  }
  const std::string& wanted = header_.sections.back().what;
  if (found[section_idx].what != wanted ||
      found[section_idx].num_bytes != static_cast<int64_t>(to.size())) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "section %d is a %s, not a %s", section_idx, Printable(found[section_idx].what), wanted));
  }
  return file_->Read(section_idx, *pool_, to);
}

absl::StatusOr<std::optional<Buffer>> PackedCache::Next(std::string what, size_t num_bytes) {
  header_.sections.push_back({.what = std::move(what)});
  if (!file_) return std::nullopt;
  GATEHOUSE_ASSIGN_OR_RETURN(Buffer buffer, backend_.Allocate(num_bytes));
  const absl::Status read = ReadNext({buffer.as<std::byte>(), num_bytes});
  if (read.ok()) return buffer;
  report_.not_read = MessageOf(read);
  file_ = std::nullopt;
  return std::nullopt;
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> PackedCache::Matrix(int64_t num_outputs,
                                                                  int64_t num_inputs,
                                                                  WeightFormat format) {
  std::string what = absl::StrFormat("matrix of %d x %d in %s", num_outputs, num_inputs,
                                     std::string(WeightFormatName(format)));
  GATEHOUSE_ASSIGN_OR_RETURN(
      std::optional<Buffer> bytes,
      Next(std::move(what), backend_.PackedMatrixBytes(num_outputs, num_inputs, format)));
  if (!bytes) return nullptr;
  return backend_.RestoreMatrix(num_outputs, num_inputs, format, *std::move(bytes));
}

absl::StatusOr<std::unique_ptr<PackedExperts>> PackedCache::Experts(const ExpertsShape& shape,
                                                                    WeightFormat format) {
  std::string what =
      absl::StrFormat("set of %d experts of %d x %d in %s%s", shape.num_experts,
                      shape.intermediate_size, shape.hidden_size,
                      std::string(WeightFormatName(format)), shape.has_bias ? " with biases" : "");
  GATEHOUSE_ASSIGN_OR_RETURN(std::optional<Buffer> bytes,
                             Next(std::move(what), backend_.PackedExpertsBytes(shape, format)));
  if (!bytes) return nullptr;
  return backend_.RestoreExperts(shape, format, *std::move(bytes));
}

absl::Status PackedCache::Save() {
  // A file that was exchanged after its checksum was taken, but before it was packed.
  GATEHOUSE_RETURN_IF_ERROR(CheckUnchanged(request_.model_files, *pool_, header_.checkpoint));
  std::error_code ignored;  // the file's own failure says more
  std::filesystem::create_directory(request_.dir, ignored);
  return WritePackedFile(path_, header_, contents_, *pool_);
}

PackedCacheReport PackedCache::Finish() {
  if (report_.not_read.empty()) return report_;
  if (header_.checkpoint.empty()) {
    report_.not_saved = report_.not_read;
  } else {
    report_.not_saved = MessageOf(Save());
  }
  return report_;
}

}  // namespace gatehouse
