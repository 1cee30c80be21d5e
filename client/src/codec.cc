// Codecs' untyped half: JSON through nlohmann, protobuf, and the wire format of
// flux.v1.PayloadList.
#include "flux/codec.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/message.h"
#include "google/protobuf/message_lite.h"
#include "google/protobuf/util/json_util.h"
#include "proto/bridge.h"

namespace flux::internal {
namespace {

using nlohmann::json;

// How much of an offending value an error shows.
constexpr size_t kShownBytesMax = 60;

// Length of the valid UTF-8 character at the front of `text`, or 0 (Unicode 15, table 3-7).
size_t CharacterBytes(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  auto tail = [&](size_t i, uint8_t min = 0x80, uint8_t max = 0xBF) {
    return i < text.size() && byte(i) >= min && byte(i) <= max;
  };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return tail(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    const uint8_t min = lead == 0xE0 ? 0xA0 : 0x80;
    const uint8_t max = lead == 0xED ? 0x9F : 0xBF;
    return tail(1, min, max) && tail(2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const uint8_t min = lead == 0xF0 ? 0x90 : 0x80;
    const uint8_t max = lead == 0xF4 ? 0x8F : 0xBF;
    return tail(1, min, max) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

// Where `text` stops being UTF-8, if it does.
std::optional<size_t> FirstBadByte(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t bytes = CharacterBytes(text.substr(at));
    if (bytes == 0) return at;
    at += bytes;
  }
  return std::nullopt;
}

std::string Shown(const json& node) {
  std::string text = node.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > kShownBytesMax) {
    text.resize(kShownBytesMax);
    while (!text.empty() && FirstBadByte(text)) text.pop_back();
    text += "…";
  }
  return text;
}

absl::Status Expected(std::string_view what, const json& node) {
  return absl::InvalidArgumentError(absl::StrCat("expected ", ToAbsl(what), ", got ", Shown(node)));
}

template <typename Float>
absl::Status WriteFloating(Float value, std::string* out) {
  if (!std::isfinite(value)) {
    return absl::InvalidArgumentError(
        "JSON has no NaN and no infinity; send std::optional or a text instead");
  }
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value);
  out->append(buffer, end.ptr);
  return absl::OkStatus();
}

template <typename Integer>
void WriteInteger(Integer value, std::string* out) {
  char buffer[24];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value);
  out->append(buffer, end.ptr);
}

// nlohmann copies and destroys by recursion, so depth is bounded before it sees the text.
bool TooDeep(std::string_view text) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kJsonDepthMax) return true;
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return false;
}

size_t DepthOf(const json& node) {
  size_t deepest = 0;
  if (node.is_structured()) {
    for (const json& child : node) deepest = std::max(deepest, DepthOf(child));
    return deepest + 1;
  }
  return 0;
}

// ---- protobuf wire format, as far as PayloadList goes
// -------------------------------------------------------------

constexpr uint8_t kListItemsTag = (1 << 3) | 2;
constexpr uint8_t kDataTag = (1 << 3) | 2;
constexpr uint8_t kEncodingTag = (2 << 3) | 0;
constexpr uint8_t kContentTypeTag = (3 << 3) | 2;
constexpr uint8_t kMetadataTag = (4 << 3) | 2;
constexpr uint8_t kMapKeyTag = (1 << 3) | 2;
constexpr uint8_t kMapValueTag = (2 << 3) | 2;

size_t VarintBytes(uint64_t value) {
  size_t bytes = 1;
  while (value >= 0x80) {
    value >>= 7;
    ++bytes;
  }
  return bytes;
}

void PutVarint(uint64_t value, std::string* out) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

size_t FieldBytes(std::string_view value) { return 1 + VarintBytes(value.size()) + value.size(); }

void PutField(uint8_t tag, std::string_view value, std::string* out) {
  out->push_back(static_cast<char>(tag));
  PutVarint(value.size(), out);
  out->append(value);
}

// Reads fields of a message in place.
class FieldReader {
 public:
  explicit FieldReader(std::string_view data) : rest_(data) {}

  bool done() const { return rest_.empty(); }

  bool ReadVarint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return false;
      const uint8_t byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      *value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  bool ReadBytes(std::string_view* value) {
    uint64_t size = 0;
    if (!ReadVarint(&size) || size > rest_.size()) return false;
    *value = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return true;
  }

  // Skips a field of a newer format.
  bool Skip(uint64_t tag) {
    uint64_t ignored = 0;
    std::string_view bytes;
    switch (tag & 7) {
      case 0:
        return ReadVarint(&ignored);
      case 1:
        return Drop(8);
      case 2:
        return ReadBytes(&bytes);
      case 5:
        return Drop(4);
      default:
        return false;
    }
  }

 private:
  bool Drop(size_t bytes) {
    if (rest_.size() < bytes) return false;
    rest_.remove_prefix(bytes);
    return true;
  }

  std::string_view rest_;
};

bool ReadMapEntry(std::string_view data, std::map<std::string, std::string>* map) {
  FieldReader reader(data);
  std::string_view key, value;
  while (!reader.done()) {
    uint64_t tag = 0;
    if (!reader.ReadVarint(&tag)) return false;
    if (tag == kMapKeyTag ? !reader.ReadBytes(&key)
                          : (tag == kMapValueTag ? !reader.ReadBytes(&value) : !reader.Skip(tag))) {
      return false;
    }
  }
  (*map)[std::string(key)] = std::string(value);
  return true;
}

bool ReadPayload(std::string_view data, Payload* payload) {
  FieldReader reader(data);
  while (!reader.done()) {
    uint64_t tag = 0;
    uint64_t number = 0;
    std::string_view bytes;
    if (!reader.ReadVarint(&tag)) return false;
    switch (tag) {
      case kDataTag:
        if (!reader.ReadBytes(&bytes)) return false;
        payload->data.assign(bytes);
        break;
      case kEncodingTag:
        if (!reader.ReadVarint(&number)) return false;
        payload->encoding = static_cast<Encoding>(static_cast<int32_t>(number));
        break;
      case kContentTypeTag:
        if (!reader.ReadBytes(&bytes)) return false;
        payload->content_type.assign(bytes);
        break;
      case kMetadataTag:
        if (!reader.ReadBytes(&bytes) || !ReadMapEntry(bytes, &payload->metadata)) return false;
        break;
      default:
        if (!reader.Skip(tag)) return false;
    }
  }
  return true;
}

absl::Status DamagedList(size_t item) {
  return absl::InvalidArgumentError(
      absl::StrCat("damaged list payload: item ", item, " is not a flux.v1.Payload"));
}

absl::StatusOr<std::vector<Payload>> SplitFrame(std::string_view frame) {
  std::vector<Payload> items;
  FieldReader reader(frame);
  while (!reader.done()) {
    uint64_t tag = 0;
    std::string_view bytes;
    if (!reader.ReadVarint(&tag)) return DamagedList(items.size());
    if (tag != kListItemsTag) {
      if (!reader.Skip(tag)) return DamagedList(items.size());
      continue;
    }
    if (!reader.ReadBytes(&bytes) || !ReadPayload(bytes, &items.emplace_back())) {
      return DamagedList(items.size());
    }
  }
  return items;
}

std::string_view EncodingName(Encoding encoding) {
  switch (encoding) {
    case Encoding::kUnspecified:
      return "no encoding";
    case Encoding::kJson:
      return "JSON";
    case Encoding::kProtobuf:
      return "protobuf";
    case Encoding::kBytes:
      return "bytes";
    case Encoding::kList:
      return "a list";
    case Encoding::kNone:
      return "no value";
    case Encoding::kCustom:
      return "a custom encoding";
  }
  return "an unknown encoding";
}

absl::Status AppendJsonText(const Payload& payload, size_t depth, std::string* out) {
  if (depth > kJsonDepthMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("lists are nested deeper than ", kJsonDepthMax, " levels"));
  }
  switch (payload.encoding) {
    case Encoding::kJson:
      out->append(payload.data);
      return absl::OkStatus();
    case Encoding::kNone:
      out->append("null");
      return absl::OkStatus();
    case Encoding::kList: {
      FLUX_ASSIGN_OR_RETURN(std::vector<Payload> items, SplitFrame(payload.data));
      out->push_back('[');
      for (size_t i = 0; i < items.size(); ++i) {
        if (i > 0) out->push_back(',');
        absl::Status status = AppendJsonText(items[i], depth + 1, out);
        if (!status.ok()) return InItem(i, status);
      }
      out->push_back(']');
      return absl::OkStatus();
    }
    default:
      return WrongEncoding(payload, "JSON");
  }
}

// The reference tokens of an RFC 6901 pointer.
absl::StatusOr<std::vector<std::string>> PointerTokens(std::string_view pointer) {
  std::vector<std::string> tokens;
  if (pointer.empty()) return tokens;
  if (pointer.front() != '/') {
    return absl::InvalidArgumentError(
        absl::StrCat("a JSON pointer begins with '/': \"", ToAbsl(pointer), "\""));
  }
  for (size_t i = 0; i < pointer.size(); ++i) {
    if (pointer[i] == '/') {
      tokens.emplace_back();
    } else if (pointer[i] != '~') {
      tokens.back().push_back(pointer[i]);
    } else if (i + 1 < pointer.size() && (pointer[i + 1] == '0' || pointer[i + 1] == '1')) {
      tokens.back().push_back(pointer[++i] == '0' ? '~' : '/');
    } else {
      return absl::InvalidArgumentError(absl::StrCat(
          "in a JSON pointer '~' is written ~0 and '/' ~1: \"", ToAbsl(pointer), "\""));
    }
  }
  return tokens;
}

std::optional<size_t> IndexOf(const std::string& token) {
  size_t index = 0;
  const char* end = token.data() + token.size();
  const auto parsed = std::from_chars(token.data(), end, index);
  if (token.empty() || parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  if (token.size() > 1 && token.front() == '0') return std::nullopt;
  return index;
}

Payload NoValue() {
  Payload payload;
  payload.encoding = Encoding::kNone;
  return payload;
}

absl::Status NoParts(const std::string& token, std::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("cannot take \"", token, "\" of ", ToAbsl(what), ": it has no such parts"));
}

absl::StatusOr<Payload> ProjectJson(const Payload& payload, const std::vector<std::string>& tokens,
                                    size_t next) {
  FLUX_ASSIGN_OR_RETURN(JsonDocument document, JsonDocument::Parse(payload.data));
  const json* node = &document.root();
  for (; next < tokens.size(); ++next) {
    const std::string& token = tokens[next];
    if (node->is_null()) return NoValue();  // a member of an empty optional is an empty optional
    if (node->is_object()) {
      const auto member = node->find(token);
      if (member == node->end()) return NoValue();
      node = &*member;
    } else if (node->is_array() && IndexOf(token)) {
      if (*IndexOf(token) >= node->size()) return NoValue();
      node = &(*node)[*IndexOf(token)];
    } else {
      return NoParts(token, Shown(*node));
    }
  }
  return JsonPayload(node->dump());
}

}  // namespace

// ---- writing JSON
// ---------------------------------------------------------------------------------------------------

absl::Status WriteString(std::string_view value, std::string* out) {
  if (std::optional<size_t> bad = FirstBadByte(value)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "text is not UTF-8 at byte ", *bad, "; use flux::Bytes for bytes that are not text"));
  }
  static constexpr char kHex[] = "0123456789abcdef";
  out->reserve(out->size() + value.size() + 2);
  out->push_back('"');
  size_t plain = 0;  // start of what needs no escape
  for (size_t i = 0; i < value.size(); ++i) {
    const uint8_t c = static_cast<uint8_t>(value[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out->append(value, plain, i - plain);
    plain = i + 1;
    switch (c) {
      case '"':
        out->append("\\\"");
        break;
      case '\\':
        out->append("\\\\");
        break;
      case '\n':
        out->append("\\n");
        break;
      case '\r':
        out->append("\\r");
        break;
      case '\t':
        out->append("\\t");
        break;
      default:
        out->append("\\u00");
        out->push_back(kHex[c >> 4]);
        out->push_back(kHex[c & 15]);
    }
  }
  out->append(value, plain);
  out->push_back('"');
  return absl::OkStatus();
}

absl::Status WriteDouble(double value, std::string* out) { return WriteFloating(value, out); }
absl::Status WriteFloat(float value, std::string* out) { return WriteFloating(value, out); }
void WriteBool(bool value, std::string* out) { out->append(value ? "true" : "false"); }
void WriteSigned(int64_t value, std::string* out) { WriteInteger(value, out); }
void WriteUnsigned(uint64_t value, std::string* out) { WriteInteger(value, out); }

void WriteBase64(std::string_view value, std::string* out) {
  out->push_back('"');
  out->append(absl::Base64Escape(ToAbsl(value)));
  out->push_back('"');
}

absl::Status WriteAny(const json& value, std::string* out) {
  if (DepthOf(value) > kJsonDepthMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON is nested deeper than ", kJsonDepthMax, " levels"));
  }
  try {
    out->append(value.dump());
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("cannot be written as JSON: ", error.what()));
  }
  return absl::OkStatus();
}

// ---- reading JSON
// ---------------------------------------------------------------------------------------------------

JsonDocument::JsonDocument(std::unique_ptr<json> root) : root_(std::move(root)) {}
JsonDocument::JsonDocument(JsonDocument&&) noexcept = default;
JsonDocument& JsonDocument::operator=(JsonDocument&&) noexcept = default;
JsonDocument::~JsonDocument() = default;

absl::StatusOr<JsonDocument> JsonDocument::Parse(std::string_view text) {
  if (TooDeep(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON is nested deeper than ", kJsonDepthMax, " levels"));
  }
  try {
    return JsonDocument(std::make_unique<json>(json::parse(text)));
  } catch (const json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: …"
    std::string_view what = error.what();
    if (const size_t end = what.find("] "); end != what.npos) what.remove_prefix(end + 2);
    return absl::InvalidArgumentError(absl::StrCat("not JSON: ", ToAbsl(what)));
  }
}

absl::Status ReadBool(const json& node, bool* value) {
  if (!node.is_boolean()) return Expected("true or false", node);
  *value = node.get<bool>();
  return absl::OkStatus();
}

absl::Status ReadSigned(const json& node, int64_t min, int64_t max, int64_t* value) {
  auto expected = [&] {
    return Expected(ToStd(absl::StrCat("an integer from ", min, " to ", max)), node);
  };
  if (node.is_number_unsigned()) {
    const uint64_t number = node.get<uint64_t>();
    if (number > static_cast<uint64_t>(max)) return expected();
    *value = static_cast<int64_t>(number);
    return absl::OkStatus();
  }
  if (node.is_number_float()) {  // 1e3 and 2.0 are integers to JSON
    const double number = node.get<double>();
    if (std::nearbyint(number) != number || number < -0x1p63 || number >= 0x1p63) return expected();
    *value = static_cast<int64_t>(number);
  } else if (node.is_number_integer()) {
    *value = node.get<int64_t>();
  } else {
    return expected();
  }
  return *value < min || *value > max ? expected() : absl::OkStatus();
}

absl::Status ReadUnsigned(const json& node, uint64_t max, uint64_t* value) {
  auto expected = [&] { return Expected(ToStd(absl::StrCat("an integer from 0 to ", max)), node); };
  if (node.is_number_unsigned()) {
    *value = node.get<uint64_t>();
  } else if (node.is_number_float()) {
    const double number = node.get<double>();
    if (std::nearbyint(number) != number || number < 0 || number >= 0x1p64) return expected();
    *value = static_cast<uint64_t>(number);
  } else {
    return expected();  // also every negative integer
  }
  return *value > max ? expected() : absl::OkStatus();
}

absl::Status ReadDouble(const json& node, double* value) {
  if (!node.is_number()) return Expected("a number", node);
  *value = node.get<double>();
  // An integer a double cannot hold would come back as another one.
  const bool exact = node.is_number_float() ||
                     (node.is_number_unsigned()
                          ? *value < 0x1p64 && static_cast<uint64_t>(*value) == node.get<uint64_t>()
                          : *value < 0x1p63 && static_cast<int64_t>(*value) == node.get<int64_t>());
  if (!exact) return Expected("a number that a double can hold exactly", node);
  return absl::OkStatus();
}

absl::Status ReadFloat(const json& node, float* value) {
  double wide = 0;
  FLUX_RETURN_IF_ERROR(ReadDouble(node, &wide));
  *value = static_cast<float>(wide);
  if (!std::isfinite(*value)) return Expected("a number within the range of float", node);
  return absl::OkStatus();
}

absl::Status ReadString(const json& node, std::string* value) {
  if (!node.is_string()) return Expected("a text", node);
  *value = node.get_ref<const std::string&>();
  return absl::OkStatus();
}

absl::Status ReadBase64(const json& node, std::string* value) {
  if (!node.is_string() || !absl::Base64Unescape(node.get_ref<const std::string&>(), value)) {
    return Expected("bytes as base64 text", node);
  }
  return absl::OkStatus();
}

void ReadAny(const json& node, json* value) { *value = node; }
bool IsNull(const json& node) { return node.is_null(); }

absl::Status ExpectObject(const json& node) {
  return node.is_object() ? absl::OkStatus() : Expected("an object", node);
}

absl::Status ExpectArray(const json& node, size_t* size) {
  if (!node.is_array()) return Expected("an array", node);
  *size = node.size();
  return absl::OkStatus();
}

absl::Status ExpectLength(size_t expected, size_t found) {
  if (expected == found) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("expected ", expected, expected == 1 ? " item" : " items", ", got ", found));
}

const json& Item(const json& node, size_t index) { return node[index]; }

const json* FindMember(const json& node, std::string_view name) {
  const auto found = node.find(name);
  return found == node.end() ? nullptr : &*found;
}

absl::Status ForEachMember(
    const json& node,
    const std::function<absl::Status(const std::string& name, const json& value)>& use) {
  FLUX_RETURN_IF_ERROR(ExpectObject(node));
  for (const auto& [name, value] : node.items()) FLUX_RETURN_IF_ERROR(use(name, value));
  return absl::OkStatus();
}

absl::Status Within(std::string_view token, const absl::Status& status) {
  const std::string_view message = Message(status);
  return absl::Status(
      status.code(),
      absl::StrCat("/", ToAbsl(token), message.substr(0, 1) == "/" ? "" : ": ", ToAbsl(message)));
}

absl::Status Within(size_t index, const absl::Status& status) {
  return Within(std::to_string(index), status);
}

// ---- payloads
// -------------------------------------------------------------------------------------------------------

void ListWriter::Add(const Payload& item) {
  size_t bytes = 0;
  if (!item.data.empty()) bytes += FieldBytes(item.data);
  const uint64_t encoding = static_cast<uint32_t>(item.encoding);
  if (encoding != 0) bytes += 1 + VarintBytes(encoding);
  if (!item.content_type.empty()) bytes += FieldBytes(item.content_type);
  for (const auto& [key, value] : item.metadata) {
    const size_t entry = FieldBytes(key) + FieldBytes(value);
    bytes += 1 + VarintBytes(entry) + entry;
  }
  data_.push_back(static_cast<char>(kListItemsTag));
  PutVarint(bytes, &data_);
  if (!item.data.empty()) PutField(kDataTag, item.data, &data_);
  if (encoding != 0) {
    data_.push_back(static_cast<char>(kEncodingTag));
    PutVarint(encoding, &data_);
  }
  if (!item.content_type.empty()) PutField(kContentTypeTag, item.content_type, &data_);
  for (const auto& [key, value] : item.metadata) {
    data_.push_back(static_cast<char>(kMetadataTag));
    PutVarint(FieldBytes(key) + FieldBytes(value), &data_);
    PutField(kMapKeyTag, key, &data_);
    PutField(kMapValueTag, value, &data_);
  }
}

Payload ListWriter::Finish() && {
  Payload payload;
  payload.data = std::move(data_);
  payload.encoding = Encoding::kList;
  return payload;
}

absl::StatusOr<std::vector<Payload>> SplitList(const Payload& list) {
  if (list.encoding == Encoding::kList) return SplitFrame(list.data);
  if (list.encoding != Encoding::kJson) return WrongEncoding(list, "a list");
  FLUX_ASSIGN_OR_RETURN(JsonDocument document, JsonDocument::Parse(list.data));
  size_t size = 0;
  FLUX_RETURN_IF_ERROR(ExpectArray(document.root(), &size));
  std::vector<Payload> items;
  items.reserve(size);
  for (const json& item : document.root()) items.push_back(JsonPayload(item.dump()));
  return items;
}

absl::StatusOr<Payload> Project(Payload payload, std::string_view pointer) {
  FLUX_ASSIGN_OR_RETURN(std::vector<std::string> tokens, PointerTokens(pointer));
  for (size_t next = 0; next < tokens.size(); ++next) {
    if (payload.encoding == Encoding::kNone) return payload;
    if (payload.encoding == Encoding::kJson) return ProjectJson(payload, tokens, next);
    if (payload.encoding != Encoding::kList) {
      return absl::InvalidArgumentError(absl::StrCat(
          "cannot follow the JSON pointer \"", ToAbsl(pointer), "\" into ",
          ToAbsl(EncodingName(payload.encoding)), "; only JSON and lists have readable parts"));
    }
    FLUX_ASSIGN_OR_RETURN(std::vector<Payload> items, SplitFrame(payload.data));
    const std::optional<size_t> index = IndexOf(tokens[next]);
    if (!index) return NoParts(tokens[next], "a list");
    if (*index >= items.size()) return NoValue();
    payload = std::move(items[*index]);
  }
  return payload;
}

absl::StatusOr<std::string> ToJsonText(const Payload& payload) {
  std::string text;
  FLUX_RETURN_IF_ERROR(AppendJsonText(payload, 0, &text));
  return text;
}

Payload JsonPayload(std::string text) {
  Payload payload;
  payload.data = std::move(text);
  payload.encoding = Encoding::kJson;
  return payload;
}

absl::StatusOr<Payload> EncodeMessage(const google::protobuf::MessageLite& message) {
  Payload payload;
  payload.encoding = Encoding::kProtobuf;
  payload.content_type = message.GetTypeName();
  if (!message.IsInitialized()) {
    return absl::InvalidArgumentError(
        absl::StrCat("message ", payload.content_type,
                     " lacks required fields: ", message.InitializationErrorString()));
  }
  {
    google::protobuf::io::StringOutputStream stream(&payload.data);
    google::protobuf::io::CodedOutputStream output(&stream);
    output.SetSerializationDeterministic(true);
    if (!message.SerializeToCodedStream(&output)) {
      return absl::InvalidArgumentError(
          absl::StrCat("message ", payload.content_type, " is too large to be serialised"));
    }
  }
  return payload;
}

absl::Status DecodeMessage(const Payload& payload, google::protobuf::MessageLite* message) {
  const std::string type = message->GetTypeName();
  if (payload.encoding == Encoding::kJson) {
    auto* full = dynamic_cast<google::protobuf::Message*>(message);
    if (full == nullptr) return WrongEncoding(payload, type);
    google::protobuf::util::JsonParseOptions options;
    options.ignore_unknown_fields = true;  // as the binary form does
    const auto status = google::protobuf::util::JsonStringToMessage(payload.data, full, options);
    if (status.ok()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("not the JSON form of ", type, ": ", status.ToString()));
  }
  if (payload.encoding != Encoding::kProtobuf) return WrongEncoding(payload, type);
  if (payload.content_type != type) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected message ", type, ", got message ", payload.content_type));
  }
  if (!message->ParseFromString(payload.data)) {
    return absl::InvalidArgumentError(absl::StrCat("damaged payload: not a message ", type));
  }
  return absl::OkStatus();
}

std::string MessageTypeName(const google::protobuf::MessageLite& message) {
  return message.GetTypeName();
}

absl::StatusOr<std::string> DecodeBytes(Payload payload) {
  if (payload.encoding == Encoding::kBytes) return std::move(payload.data);
  if (payload.encoding != Encoding::kJson) return WrongEncoding(payload, "bytes");
  FLUX_ASSIGN_OR_RETURN(JsonDocument document, JsonDocument::Parse(payload.data));
  std::string bytes;
  FLUX_RETURN_IF_ERROR(ReadBase64(document.root(), &bytes));
  return bytes;
}

bool FastReadString(std::string_view text, std::string* value) {
  if (text.size() < 2 || text.front() != '"' || text.back() != '"') return false;
  text = text.substr(1, text.size() - 2);
  for (const char c : text) {
    if (static_cast<uint8_t>(c) < 0x20 || static_cast<uint8_t>(c) >= 0x80 || c == '"' ||
        c == '\\') {
      return false;
    }
  }
  value->assign(text);
  return true;
}

bool FastReadSigned(std::string_view text, int64_t* value) {
  // "007" is not JSON; leave it to the parser to say so.
  const std::string_view digits = text.substr(!text.empty() && text.front() == '-' ? 1 : 0);
  if (digits.size() > 1 && digits.front() == '0') return false;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, *value);
  return parsed.ec == std::errc() && parsed.ptr == end;
}

absl::Status WrongEncoding(const Payload& payload, std::string_view expected) {
  const std::string_view found = EncodingName(payload.encoding);
  return absl::InvalidArgumentError(absl::StrCat(
      "expected ", ToAbsl(expected), ", got ", ToAbsl(found),
      payload.content_type.empty() ? "" : absl::StrCat(" (", payload.content_type, ")")));
}

std::string_view ValidUtf8Prefix(std::string_view text) {
  return text.substr(0, FirstBadByte(text).value_or(text.size()));
}

absl::Status InItem(size_t index, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("item ", index, ": ", ToAbsl(Message(status))));
}

}  // namespace flux::internal
