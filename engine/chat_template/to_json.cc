#include "engine/chat_template/to_json.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"
#include "kernels/base/utf8.h"

namespace gatehouse::jinja {
namespace {

void AppendUtf16Escape(char32_t c, std::string* out) {
  if (c >= 0x10000) {
    const auto above = static_cast<uint32_t>(c) - 0x10000;
    *out += absl::StrFormat("\\u%04x\\u%04x", 0xD800 + (above >> 10), 0xDC00 + (above & 0x3FF));
  } else {
    *out += absl::StrFormat("\\u%04x", static_cast<uint32_t>(c));
  }
}

std::string JsonQuote(std::string_view text, bool ensure_ascii) {
  std::string quoted = "\"";
  for (size_t at = 0; at < text.size();) {
    const char32_t c = NextCodePoint(text, &at);
    static constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b";
    static constexpr std::string_view kNames = "\"\\nrtfb";
    const size_t found = c < 0x80 ? kEscaped.find(static_cast<char>(c)) : std::string_view::npos;
    if (found != std::string_view::npos) {
      quoted += '\\';
      quoted += kNames[found];
    } else if (c < 0x20 || (ensure_ascii && c > 0x7E)) {
      AppendUtf16Escape(c, &quoted);
    } else {
      AppendUtf8(c, &quoted);
    }
  }
  return quoted + '"';
}

class JsonWriter {
 public:
  JsonWriter(Interpreter& run, const JsonStyle& style) : run_(run), style_(style) {}

  absl::StatusOr<Text> Write(const Value& value) {
    GATEHOUSE_RETURN_IF_ERROR(Append(value));
    GATEHOUSE_RETURN_IF_ERROR(ChargeWritten());
    return std::move(out_);
  }

 private:
  absl::Status Append(const Value& value) {
    GATEHOUSE_RETURN_IF_ERROR(run_.Charge(1));
    GATEHOUSE_RETURN_IF_ERROR(ChargeWritten());
    if (value.is_dict()) return AppendDict(value.dict());
    if (value.list() != nullptr) return AppendList(*value.list());
    if (value.is_string()) {
      out_.Append(value.text().Derive(JsonQuote(value.bytes(), style_.ensure_ascii)));
      return absl::OkStatus();
    }
    const std::string scalar = Scalar(value);
    if (scalar.empty()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("Object of type %s is not JSON serializable", value.TypeName()));
    }
    out_.Append(scalar);
    return absl::OkStatus();
  }

  // While writing: indented, a short list becomes a thousand times its size.
  absl::Status ChargeWritten() {
    const size_t num_new = out_.size() - num_charged_;
    if (num_new < kBytesPerStep) return absl::OkStatus();
    num_charged_ = out_.size();
    GATEHOUSE_RETURN_IF_ERROR(run_.CheckOutput(out_.size()));
    return run_.ChargeBytes(num_new);
  }

  // Empty for what is none.
  static std::string Scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (value.is_bool()) return value.IsTrue() ? "true" : "false";
    if (value.is_integer()) return absl::StrFormat("%d", *value.AsInteger());
    if (value.kind() != Value::Kind::kFloat) return "";
    const double number = value.float_value();
    if (std::isnan(number)) return "NaN";
    if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
    return FormatFloat(number);
  }

  absl::Status AppendBreak() {
    if (!style_.indent.has_value()) return absl::OkStatus();
    out_.Append("\n");
    for (int i = 0; i < depth_; ++i) out_.Append(*style_.indent);
    return ChargeWritten();
  }

  absl::Status AppendList(const std::vector<Value>& items) {
    if (items.empty()) {
      out_.Append("[]");
      return absl::OkStatus();
    }
    out_.Append("[");
    ++depth_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.Append(style_.item_separator);
      GATEHOUSE_RETURN_IF_ERROR(AppendBreak());
      GATEHOUSE_RETURN_IF_ERROR(Append(items[i]));
    }
    --depth_;
    GATEHOUSE_RETURN_IF_ERROR(AppendBreak());
    out_.Append("]");
    return absl::OkStatus();
  }

  absl::Status AppendDict(const Dict& dict) {
    if (dict.size() == 0) {
      out_.Append("{}");
      return absl::OkStatus();
    }
    std::vector<const Dict::Entry*> entries;
    for (const Dict::Entry& entry : dict.entries()) entries.push_back(&entry);
    if (style_.sort_keys) {
      absl::Status status;
      std::stable_sort(entries.begin(), entries.end(), [&status](const auto* a, const auto* b) {
        const absl::StatusOr<int> order = Order(a->first, b->first, "<");
        if (!order.ok()) status = order.status();
        return order.ok() && *order < 0;
      });
      GATEHOUSE_RETURN_IF_ERROR(status);
    }
    out_.Append("{");
    ++depth_;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_.Append(style_.item_separator);
      GATEHOUSE_RETURN_IF_ERROR(AppendBreak());
      GATEHOUSE_RETURN_IF_ERROR(AppendKey(entries[i]->first));
      out_.Append(style_.key_separator);
      GATEHOUSE_RETURN_IF_ERROR(Append(entries[i]->second));
    }
    --depth_;
    GATEHOUSE_RETURN_IF_ERROR(AppendBreak());
    out_.Append("}");
    return absl::OkStatus();
  }

  absl::Status AppendKey(const Value& key) {
    if (key.is_string()) return Append(key);
    const std::string scalar = Scalar(key);
    if (scalar.empty()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("keys must be str, int, float, bool or None, not %s", key.TypeName()));
    }
    out_.Append("\"" + scalar + "\"");
    return absl::OkStatus();
  }

  Interpreter& run_;
  const JsonStyle& style_;
  Text out_;
  int depth_ = 0;
  size_t num_charged_ = 0;  // bytes of out_
};

}  // namespace

absl::StatusOr<Text> ToJson(Interpreter& run, const Value& value, const JsonStyle& style) {
  return JsonWriter(run, style).Write(value);
}

}  // namespace gatehouse::jinja
