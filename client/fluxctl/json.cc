#include "client/fluxctl/json.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/fluxctl/text.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Notes where parsing stopped; accepts everything else, so it costs no tree.
class Checker : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return true; }
  bool key(string_t&) override { return true; }
  bool end_object() override { return true; }
  bool start_array(std::size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    position_ = position;
    message_ = error.what();
    return false;
  }

  std::size_t position() const { return position_; }
  const std::string& message() const { return message_; }

 private:
  std::size_t position_ = 0;  // 1-based; of the character that could not be
  std::string message_;
};

// The deepest nesting of brackets outside strings.
std::size_t Depth(std::string_view text) {
  std::size_t depth = 0;
  std::size_t deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return deepest;
}

std::string_view Trim(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

// "in object key: unexpected '}'; expected string literal" out of the library's
// "[json.exception.parse_error.101] parse error at line 1, column 9: syntax error while parsing
// object key - unexpected '}'; expected string literal".
std::string Reason(std::string message) {
  constexpr std::string_view kMark = "syntax error while parsing ";
  if (const std::size_t at = message.find(kMark); at != std::string::npos) {
    message.replace(0, at + kMark.size(), "in ");
    if (const std::size_t dash = message.find(" - "); dash != std::string::npos)
      message.replace(dash, 3, ": ");
  } else if (const std::size_t end = message.find(": "); end != std::string::npos) {
    message.erase(0, end + 2);
  }
  return Escape(message, Lines::kOne);
}

absl::Status SyntaxError(const std::string& what, std::string_view text, const Checker& checker) {
  const std::size_t at =
      std::min(checker.position() == 0 ? 0 : checker.position() - 1, text.size());
  const std::string_view before = text.substr(0, at);
  const auto line = static_cast<std::size_t>(std::count(before.begin(), before.end(), '\n')) + 1;
  const std::size_t line_start =
      before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  const std::string column_text(text.substr(line_start, at - line_start));
  const std::size_t column = Width(column_text) + 1;
  return WithHint(
      absl::InvalidArgumentError(absl::StrCat(what, " is not JSON: line ", line, ", column ",
                                              column, ": ", Reason(checker.message()))),
      PointAt(text, at));
}

Json Opaque(const v1::Payload& payload) {
  return Json{{"encoding", EnumName(*v1::Encoding_descriptor(), payload.encoding())},
              {"content_type", payload.content_type()},
              {"data_base64", absl::Base64Escape(payload.data())}};
}

Json PayloadToJsonAt(const v1::Payload& payload, std::size_t depth) {
  switch (payload.encoding()) {
    case v1::ENCODING_NONE:
      return nullptr;
    case v1::ENCODING_JSON: {
      if (Depth(payload.data()) + depth > kJsonDepthMax) return Opaque(payload);
      Json json = Json::parse(payload.data(), nullptr, /*allow_exceptions=*/false);
      return json.is_discarded() ? Opaque(payload) : json;
    }
    case v1::ENCODING_LIST: {
      v1::PayloadList list;
      if (depth >= kJsonDepthMax || !list.ParseFromString(payload.data())) return Opaque(payload);
      Json array = Json::array();
      for (const v1::Payload& item : list.items())
        array.push_back(PayloadToJsonAt(item, depth + 1));
      return array;
    }
    default:
      return Opaque(payload);
  }
}

Json TimeToJson(int64_t time_ms) { return time_ms == 0 ? Json(nullptr) : Json(TimeText(time_ms)); }

bool IsTime(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_INT64 &&
         (field.name() == "time_ms" || std::string_view(field.name()).ends_with("_time_ms"));
}

// One value of a field: element `index` of a repeated one, or the only one where index is negative.
Json FieldToJson(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool many = index >= 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return many ? r.GetRepeatedInt32(message, &field, index) : r.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64: {
      const int64_t v =
          many ? r.GetRepeatedInt64(message, &field, index) : r.GetInt64(message, &field);
      return IsTime(field) ? TimeToJson(v) : Json(v);
    }
    case FieldDescriptor::CPPTYPE_UINT32:
      return many ? r.GetRepeatedUInt32(message, &field, index) : r.GetUInt32(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64:
      return many ? r.GetRepeatedUInt64(message, &field, index) : r.GetUInt64(message, &field);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return many ? r.GetRepeatedDouble(message, &field, index) : r.GetDouble(message, &field);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return many ? r.GetRepeatedFloat(message, &field, index) : r.GetFloat(message, &field);
    case FieldDescriptor::CPPTYPE_BOOL:
      return many ? r.GetRepeatedBool(message, &field, index) : r.GetBool(message, &field);
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumName(*field.enum_type(), many ? r.GetRepeatedEnumValue(message, &field, index)
                                               : r.GetEnumValue(message, &field));
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string v =
          many ? r.GetRepeatedString(message, &field, index) : r.GetString(message, &field);
      return field.type() == FieldDescriptor::TYPE_BYTES ? absl::BytesToHexString(v) : v;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return ToJson(many ? r.GetRepeatedMessage(message, &field, index)
                         : r.GetMessage(message, &field));
  }
  return nullptr;
}

// Maps come in hash order; their documents are sorted, so that equal messages give equal text.
Json MapToJson(const Message& message, const FieldDescriptor& field) {
  const Reflection& r = *message.GetReflection();
  const FieldDescriptor& key = *field.message_type()->map_key();
  const FieldDescriptor& value = *field.message_type()->map_value();
  std::vector<std::pair<std::string, Json>> entries;
  for (int i = 0; i < r.FieldSize(message, &field); ++i) {
    const Message& entry = r.GetRepeatedMessage(message, &field, i);
    const Json name = FieldToJson(entry, key, -1);
    entries.emplace_back(name.is_string() ? name.get<std::string>() : Dump(name, -1),
                         FieldToJson(entry, value, -1));
  }
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  Json object = Json::object();
  for (auto& [name, json] : entries) object[name] = std::move(json);
  return object;
}

}  // namespace

absl::StatusOr<std::string> CheckJson(const std::string& what, std::string_view text) {
  const std::string_view body = Trim(text);
  if (body.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is empty; give a JSON value, such as null or \"text\""));
  }
  Checker checker;
  // Parsed with its leading blanks, so that the line and column are those of the user's own text.
  const std::string_view original = text.starts_with("\xEF\xBB\xBF") ? text.substr(3) : text;
  if (!Json::sax_parse(original, &checker)) return SyntaxError(what, original, checker);
  if (Depth(body) > kJsonDepthMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is nested deeper than ", kJsonDepthMax, " levels"));
  }
  return std::string(body);
}

absl::StatusOr<std::vector<std::string>> SplitJsonArray(const std::string& what,
                                                        const std::string& text) {
  if (text.empty() || text.front() != '[') {
    return absl::InvalidArgumentError(absl::StrCat(
        what, " must be a JSON array with one element a parameter, such as '[\"a.txt\", 3]'"));
  }
  std::vector<std::string> parts;
  std::size_t depth = 0;
  std::size_t from = 1;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '[' || c == '{') ++depth;
    const bool closing = c == ']' || c == '}';
    if ((c == ',' && depth == 1) || (closing && depth == 1)) {
      const std::string_view part = Trim(std::string_view(text).substr(from, i - from));
      if (!part.empty()) parts.emplace_back(part);
      from = i + 1;
    }
    if (closing) --depth;
  }
  return parts;
}

Json PayloadToJson(const v1::Payload& payload) { return PayloadToJsonAt(payload, 0); }

std::string PayloadText(const v1::Payload& payload, int indent) {
  if (payload.encoding() == v1::ENCODING_JSON && indent < 0) return payload.data();
  return Dump(PayloadToJson(payload), indent);
}

Json ToJson(const Message& message) {
  if (message.GetDescriptor() == v1::Payload::descriptor()) {
    return PayloadToJson(static_cast<const v1::Payload&>(message));
  }
  const Reflection& r = *message.GetReflection();
  const Descriptor& descriptor = *message.GetDescriptor();
  Json object = Json::object();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    std::string name = field.name();
    if (IsTime(field)) name.resize(name.size() - std::string_view("_ms").size());
    if (field.is_map()) {
      object[name] = MapToJson(message, field);
    } else if (field.is_repeated()) {
      Json array = Json::array();
      for (int k = 0; k < r.FieldSize(message, &field); ++k)
        array.push_back(FieldToJson(message, field, k));
      object[name] = std::move(array);
    } else if (field.has_presence() && !r.HasField(message, &field)) {
      // A member of a oneof that is not the chosen one would only be noise.
      if (field.containing_oneof() == nullptr) object[name] = nullptr;
    } else {
      object[name] = FieldToJson(message, field, -1);
    }
  }
  return object;
}

std::string Dump(const Json& json, int indent) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

absl::StatusOr<v1::Definition> DefinitionFromJson(const std::string& what, std::string_view json) {
  FLUX_ASSIGN_OR_RETURN(std::string text, CheckJson(what, json));
  // The document that `definition show -o json` prints is taken as well as a bare definition.
  const Json document = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (document.is_object() && document.contains("definition") &&
      document["definition"].is_object()) {
    text = Dump(document["definition"], -1);
  }
  v1::Definition definition;
  const auto status = google::protobuf::util::JsonStringToMessage(text, &definition);
  if (!status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is not a definition: ", status.message().as_string()));
  }
  return definition;
}

Json DefinitionToJson(const v1::Definition& definition) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(definition, &text, options);
  if (!status.ok()) return ToJson(definition);
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

std::string EnumName(const EnumDescriptor& descriptor, int number) {
  const auto* value = descriptor.FindValueByNumber(number);
  if (value == nullptr) return absl::StrCat("unknown_", number);
  std::string prefix;
  for (const char c : descriptor.name()) {
    if (std::isupper(static_cast<unsigned char>(c)) != 0 && !prefix.empty()) prefix.push_back('_');
    prefix.push_back(absl::ascii_toupper(static_cast<unsigned char>(c)));
  }
  prefix.push_back('_');
  std::string_view name = value->name();
  if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  return absl::AsciiStrToLower(ToAbsl(name));
}

}  // namespace flux::ctl
