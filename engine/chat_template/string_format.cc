#include "engine/chat_template/string_format.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "engine/chat_template/call.h"
#include "kernels/base/status_macros.h"

namespace gatehouse::jinja {
namespace {

constexpr int kMaxWidth = 1000;

// "%-5.2f": what stands between the percent sign and the conversion.
struct Conversion {
  std::string name;  // of %(name)s
  bool has_name = false;
  std::string flags;
  int width = 0;
  int precision = -1;
  char type = 's';
};

class PercentFormat {
 public:
  PercentFormat(Interpreter& run, const Text& format, const Value& values)
      : run_(run), format_(format), bytes_(format.bytes()), values_(values) {
    const Sequence* const sequence = values.sequence();
    if (sequence != nullptr && sequence->type == Sequence::Type::kTuple) tuple_ = &sequence->items;
  }

  absl::StatusOr<Value> Run() {
    size_t done = 0;
    for (at_ = bytes_.find('%'); at_ < bytes_.size(); at_ = bytes_.find('%', at_)) {
      out_.AppendPart(format_, done, at_);
      GATEHOUSE_ASSIGN_OR_RETURN(const Conversion conversion, Parse());
      GATEHOUSE_RETURN_IF_ERROR(AppendConverted(conversion));
      done = at_;
    }
    out_.AppendPart(format_, done, bytes_.size());
    if (num_taken_ < (tuple_ == nullptr ? size_t{1} : tuple_->size()) && !values_.is_dict()) {
      return absl::InvalidArgumentError("not all arguments converted during string formatting");
    }
    return MakeText(run_, std::move(out_));
  }

 private:
  absl::StatusOr<int> ParseNumber() {
    int number = 0;
    for (; at_ < bytes_.size() && bytes_[at_] >= '0' && bytes_[at_] <= '9'; ++at_) {
      number = number * 10 + (bytes_[at_] - '0');
      if (number > kMaxWidth) {
        return absl::InvalidArgumentError(
            absl::StrFormat("a width or precision above %d", kMaxWidth));
      }
    }
    return number;
  }

  absl::StatusOr<Conversion> Parse() {
    Conversion conversion;
    ++at_;
    if (at_ < bytes_.size() && bytes_[at_] == '(') {
      const size_t end = bytes_.find(')', at_);
      if (end == std::string::npos) return absl::InvalidArgumentError("incomplete format key");
      conversion.name = bytes_.substr(at_ + 1, end - at_ - 1);
      conversion.has_name = true;
      at_ = end + 1;
    }
    while (at_ < bytes_.size() &&
           std::string_view("-+ 0#").find(bytes_[at_]) != std::string::npos) {
      const char flag = bytes_[at_++];
      if (conversion.flags.find(flag) == std::string::npos) conversion.flags += flag;
    }
    GATEHOUSE_ASSIGN_OR_RETURN(conversion.width, ParseNumber());
    if (at_ < bytes_.size() && bytes_[at_] == '.') {
      ++at_;
      GATEHOUSE_ASSIGN_OR_RETURN(conversion.precision, ParseNumber());
    }
    if (at_ >= bytes_.size()) return absl::InvalidArgumentError("incomplete format");
    conversion.type = bytes_[at_++];
    return conversion;
  }

  absl::StatusOr<Value> Take(const Conversion& conversion) {
    if (conversion.has_name) {
      if (!values_.is_dict()) return absl::InvalidArgumentError("format requires a mapping");
      const Value* const found = values_.dict().Find(conversion.name);
      if (found == nullptr) {
        return absl::InvalidArgumentError(absl::StrFormat("no key '%s'", conversion.name));
      }
      return *found;
    }
    const size_t idx = num_taken_++;
    if (tuple_ == nullptr && idx == 0) return values_;
    if (tuple_ == nullptr || idx >= tuple_->size()) {
      return absl::InvalidArgumentError("not enough arguments for format string");
    }
    return (*tuple_)[idx];
  }

  absl::Status AppendConverted(const Conversion& conversion) {
    if (conversion.type == '%') {
      out_.Append("%");
      return absl::OkStatus();
    }
    GATEHOUSE_ASSIGN_OR_RETURN(const Value value, Take(conversion));
    if (conversion.type == 's' || conversion.type == 'r') return AppendText(conversion, value);
    static constexpr std::string_view kTypes = "dixXeEfFgG";
    if (kTypes.find(conversion.type) == std::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrFormat("unsupported format character at byte %d", at_ - 1));
    }
    return AppendNumber(conversion, value);
  }

  absl::Status AppendText(const Conversion& conversion, const Value& value) {
    Text text;
    if (conversion.type == 's') {
      GATEHOUSE_ASSIGN_OR_RETURN(text, value.ToText());
    } else {
      GATEHOUSE_RETURN_IF_ERROR(value.AppendRepr(&text));
    }
    const std::vector<size_t> offsets = CharacterOffsets(text.bytes());
    size_t size = offsets.size() - 1;
    if (conversion.precision >= 0) size = std::min(size, static_cast<size_t>(conversion.precision));
    const std::string padding(
        static_cast<size_t>(std::max(0, conversion.width - static_cast<int>(size))), ' ');
    const bool left = conversion.flags.find('-') != std::string::npos;
    if (!left) out_.Append(padding);
    out_.AppendPart(text, 0, offsets[size]);
    if (left) out_.Append(padding);
    return absl::OkStatus();
  }

  absl::Status AppendNumber(const Conversion& conversion, const Value& value) {
    const std::optional<double> number = value.AsNumber();
    if (!number.has_value()) return WrongType("%", value, "a number");
    const bool is_integer = std::string_view("dixX").find(conversion.type) != std::string::npos;
    const bool is_hex = conversion.type == 'x' || conversion.type == 'X';
    std::string format = "%" + conversion.flags + "*.*";
    std::array<char, 2 * kMaxWidth + 512> buffer{};
    int size = 0;
    if (is_integer) {
      const bool fits = std::abs(*number) < 9.2e18;
      if ((is_hex && !value.AsInteger().has_value()) || !fits) {
        return WrongType("%", value, "an integer of 64 bits");
      }
      const int64_t integer = value.AsInteger().value_or(static_cast<int64_t>(*number));
      // C writes negative numbers in hex as large ones, Python with a sign.
      if (is_hex && integer < 0) return WrongType("%x", value, "an integer above 0");
      format += std::string("ll") + (conversion.type == 'i' ? 'd' : conversion.type);
      size = std::snprintf(buffer.data(), buffer.size(), format.c_str(), conversion.width,
                           conversion.precision, static_cast<long long>(integer));
    } else {
      format += conversion.type;
      size = std::snprintf(buffer.data(), buffer.size(), format.c_str(), conversion.width,
                           conversion.precision, *number);
    }
    out_.Append(std::string_view(buffer.data(), static_cast<size_t>(std::max(size, 0))));
    return absl::OkStatus();
  }

  Interpreter& run_;
  const Text& format_;
  const std::string& bytes_;
  const Value& values_;
  const std::vector<Value>* tuple_ = nullptr;
  size_t at_ = 0;
  size_t num_taken_ = 0;
  Text out_;
};

absl::StatusOr<Value> FindField(const Arguments& arguments, const std::string& name,
                                size_t* num_automatic) {
  int32_t idx = 0;
  if (name.empty()) {
    idx = static_cast<int32_t>((*num_automatic)++);
  } else if (!absl::SimpleAtoi(name, &idx) || idx < 0) {
    for (const auto& [each, value] : arguments.named) {
      if (each == name) return value;
    }
    return absl::InvalidArgumentError(
        absl::StrFormat("format has no argument for the field {%s}", name));
  }
  if (static_cast<size_t>(idx) >= arguments.positional.size()) {
    return absl::InvalidArgumentError("format has fewer arguments than fields");
  }
  return arguments.positional[static_cast<size_t>(idx)];
}

}  // namespace

absl::StatusOr<Value> FormatPercent(Interpreter& run, const Text& format, const Value& values) {
  return PercentFormat(run, format, values).Run();
}

absl::StatusOr<Value> FormatBraces(Interpreter& run, const Text& format,
                                   const Arguments& arguments) {
  const std::string& bytes = format.bytes();
  Text out;
  size_t done = 0;
  size_t num_automatic = 0;
  bool has_numbers = false;
  for (size_t at = bytes.find_first_of("{}"); at != std::string::npos;
       at = bytes.find_first_of("{}", done)) {
    out.AppendPart(format, done, at);
    if (at + 1 < bytes.size() && bytes[at + 1] == bytes[at]) {  // {{ and }} stand for one
      out.AppendPart(format, at, at + 1);
      done = at + 2;
      continue;
    }
    const size_t end = bytes.find('}', at);
    if (bytes[at] == '}' || end == std::string::npos) {
      return absl::InvalidArgumentError("a single '{' or '}' in a format string");
    }
    const std::string name = bytes.substr(at + 1, end - at - 1);
    if (name.find_first_of(".[:!{") != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "the format field {%s} is not supported, expected {}, {0} or {name}", name));
    }
    has_numbers = has_numbers || (!name.empty() && name[0] >= '0' && name[0] <= '9');
    GATEHOUSE_ASSIGN_OR_RETURN(const Value value, FindField(arguments, name, &num_automatic));
    if (has_numbers && num_automatic > 0) {
      return absl::InvalidArgumentError("format mixes fields {} with fields {0}");
    }
    GATEHOUSE_ASSIGN_OR_RETURN(const Text text, TextOf(run, value));
    out.Append(text);
    done = end + 1;
  }
  out.AppendPart(format, done, bytes.size());
  return MakeText(run, std::move(out));
}

}  // namespace gatehouse::jinja
