#include "engine/core/json_value.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/wire_format_lite.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

// Walks JSON text without building anything and without recursion.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  size_t position() const { return at_; }
  bool AtEnd() const { return at_ == text_.size(); }
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void SkipSpace() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')) {
      ++at_;
    }
  }

  bool Take(char c) {
    if (Peek() != c) return false;
    ++at_;
    return true;
  }

  // One value of any kind; leading space is skipped.
  bool SkipValue() {
    open_.clear();
    while (true) {
      SkipSpace();
      bool opened = false;
      switch (Peek()) {
        case '{':
          ++at_;
          if (!Open('{')) return false;
          SkipSpace();
          if (Take('}')) {
            open_.pop_back();
          } else {
            if (!SkipKey()) return false;
            opened = true;
          }
          break;
        case '[':
          ++at_;
          if (!Open('[')) return false;
          SkipSpace();
          if (Take(']')) {
            open_.pop_back();
          } else {
            opened = true;
          }
          break;
        case '"':
          if (!SkipString()) return false;
          break;
        case 't':
          if (!SkipWord("true")) return false;
          break;
        case 'f':
          if (!SkipWord("false")) return false;
          break;
        case 'n':
          if (!SkipWord("null")) return false;
          break;
        default:
          if (!SkipNumber()) return false;
      }
      if (!opened && !CloseContainers()) return false;
      if (open_.empty()) return true;
    }
  }

  // A string with its quotes.
  bool SkipString() {
    if (!Take('"')) return false;
    while (at_ < text_.size()) {
      const unsigned char c = static_cast<unsigned char>(text_[at_]);
      if (c < 0x20) return false;
      ++at_;
      if (c == '"') return true;
      if (c == '\\' && !SkipEscape()) return false;
    }
    return false;
  }

  // `"name" :`; leading space is skipped.
  bool SkipKey() {
    SkipSpace();
    if (!SkipString()) return false;
    SkipSpace();
    return Take(':');
  }

 private:
  bool Open(char c) {
    if (open_.size() >= kJsonDepthMax) return false;
    open_.push_back(c);
    return true;
  }

  // After a value: closes what ends here and steps over the comma. True with open_ empty: all is
  // read.
  bool CloseContainers() {
    while (!open_.empty()) {
      SkipSpace();
      if (Take(',')) return open_.back() == '[' || SkipKey();
      if (!Take(open_.back() == '[' ? ']' : '}')) return false;
      open_.pop_back();
    }
    return true;
  }

  bool SkipEscape() {
    const char c = Peek();
    if (c == '\0') return false;
    ++at_;
    if (c != 'u') return std::string_view("\"\\/bfnrt").find(c) != std::string_view::npos;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char h = Peek();
      if (!((h >= '0' && h <= '9') || (h >= 'a' && h <= 'f') || (h >= 'A' && h <= 'F')))
        return false;
    }
    return true;
  }

  bool SkipWord(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  bool SkipDigits() {
    const size_t from = at_;
    while (Peek() >= '0' && Peek() <= '9') ++at_;
    return at_ > from;
  }

  bool SkipNumber() {
    Take('-');
    if (!Take('0') && !SkipDigits()) return false;
    if (Take('.') && !SkipDigits()) return false;
    if (Peek() == 'e' || Peek() == 'E') {
      ++at_;
      if (!Take('+')) Take('-');
      return SkipDigits();
    }
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
  std::string open_;
};

absl::Status NotJson(const Scanner& scanner) {
  return absl::InvalidArgumentError(
      absl::StrCat("not JSON: byte ", scanner.position(), " cannot be read (or nests too deep)"));
}

std::string Unescape(std::string_view token) {
  std::string out;
  out.reserve(token.size());
  for (size_t i = 0; i < token.size(); ++i) {
    if (token[i] == '~' && i + 1 < token.size()) {
      out += token[++i] == '1' ? '/' : '~';
    } else {
      out += token[i];
    }
  }
  return out;
}

// `quoted` is a JSON string with its quotes.
bool KeyEquals(std::string_view quoted, const std::string& key) {
  const std::string_view inner = quoted.substr(1, quoted.size() - 2);
  if (inner.find('\\') == std::string_view::npos) return inner == key;
  const auto parsed = nlohmann::json::parse(quoted, nullptr, /*allow_exceptions=*/false);
  return parsed.is_string() && parsed.get_ref<const std::string&>() == key;
}

absl::Status LeadsNowhere(std::string_view pointer, std::string_view token) {
  return absl::InvalidArgumentError(absl::StrCat(
      "the pointer ", ToAbsl(pointer), " leads nowhere: there is no \"", ToAbsl(token), "\""));
}

// One step of a pointer: the member or element of `json` that `token` names.
absl::StatusOr<std::string_view> Descend(std::string_view json, const std::string& token,
                                         std::string_view pointer) {
  Scanner scanner(json);
  scanner.SkipSpace();
  std::string_view found;
  bool any = false;
  const auto value = [&]() -> std::string_view {
    scanner.SkipSpace();
    const size_t from = scanner.position();
    if (!scanner.SkipValue()) return {};
    return json.substr(from, scanner.position() - from);
  };
  if (scanner.Take('{')) {
    scanner.SkipSpace();
    if (scanner.Take('}')) return LeadsNowhere(pointer, token);
    do {
      scanner.SkipSpace();
      const size_t from = scanner.position();
      if (!scanner.SkipString()) return NotJson(scanner);
      const std::string_view key = json.substr(from, scanner.position() - from);
      scanner.SkipSpace();
      if (!scanner.Take(':')) return NotJson(scanner);
      const std::string_view member = value();
      if (member.empty()) return NotJson(scanner);
      if (KeyEquals(key, token)) {
        found = member;
        any = true;
      }
      scanner.SkipSpace();
    } while (scanner.Take(','));
    if (!scanner.Take('}')) return NotJson(scanner);
  } else if (scanner.Take('[')) {
    uint64_t wanted = 0;
    const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), wanted);
    const bool number = error == std::errc() && end == token.data() + token.size() &&
                        (token.size() == 1 || token[0] != '0');
    scanner.SkipSpace();
    if (!number || scanner.Take(']')) return LeadsNowhere(pointer, token);
    uint64_t index = 0;
    do {
      const std::string_view element = value();
      if (element.empty()) return NotJson(scanner);
      if (index++ == wanted) {
        found = element;
        any = true;
      }
      scanner.SkipSpace();
    } while (scanner.Take(','));
    if (!scanner.Take(']')) return NotJson(scanner);
  } else {
    FLUX_RETURN_IF_ERROR(CheckJson(json));
  }
  if (!any) return LeadsNowhere(pointer, token);
  return found;
}

// The JSON text of a value that must be JSON.
absl::StatusOr<std::string_view> JsonText(const Value& value, v1::Payload* scratch) {
  if (value.none()) return std::string_view("null");
  if (value.is_list()) return absl::InvalidArgumentError("expected JSON, got a list of values");
  const Value::View view = value.Look(scratch);
  if (view.encoding != v1::ENCODING_JSON) {
    return absl::InvalidArgumentError(absl::StrCat("expected JSON, got a payload of encoding ",
                                                   v1::Encoding_Name(view.encoding)));
  }
  return view.data;
}

std::string_view Trim(std::string_view text) {
  const size_t from = text.find_first_not_of(" \n\t\r");
  if (from == std::string_view::npos) return {};
  return text.substr(from, text.find_last_not_of(" \n\t\r") - from + 1);
}

// Length of the UTF-8 sequence at the front, 0 if it is not one.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto tail = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f)) return 0;
    return tail(1) && tail(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    if ((first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) > 0x8f)) return 0;
    return tail(1) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

// Into an array of the right size: a stream over a string doubles it for a few bytes of room.
std::string SerializeDeterministic(const google::protobuf::MessageLite& message) {
  std::string out(message.ByteSizeLong(), '\0');
  google::protobuf::io::ArrayOutputStream stream(out.data(), static_cast<int>(out.size()));
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeWithCachedSizes(&coded);
  return out;
}

void AppendField(uint32_t number, const google::protobuf::MessageLite& message, std::string* out) {
  using google::protobuf::io::CodedOutputStream;
  const uint32_t tag = number << 3 | 2;
  const auto bytes = static_cast<uint32_t>(message.ByteSizeLong());
  const size_t begin = out->size();
  out->resize(begin + CodedOutputStream::VarintSize32(tag) +
              CodedOutputStream::VarintSize32(bytes) + bytes);
  google::protobuf::io::ArrayOutputStream stream(out->data() + begin,
                                                 static_cast<int>(out->size() - begin));
  CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  coded.WriteTag(tag);
  coded.WriteVarint32(bytes);
  message.SerializeWithCachedSizes(&coded);
}

absl::Status CheckJson(std::string_view json) {
  Scanner scanner(json);
  if (!scanner.SkipValue()) return NotJson(scanner);
  scanner.SkipSpace();
  if (!scanner.AtEnd()) return NotJson(scanner);
  return absl::OkStatus();
}

bool IsJsonPointer(std::string_view pointer) {
  if (pointer.empty()) return true;
  if (pointer[0] != '/') return false;
  for (size_t i = 0; i < pointer.size(); ++i) {
    if (pointer[i] != '~') continue;
    if (i + 1 == pointer.size() || (pointer[i + 1] != '0' && pointer[i + 1] != '1')) return false;
  }
  return true;
}

absl::StatusOr<std::string_view> FindJsonPointer(std::string_view json, std::string_view pointer) {
  if (!IsJsonPointer(pointer)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", ToAbsl(pointer), "\" is not a JSON pointer"));
  }
  if (pointer.empty()) FLUX_RETURN_IF_ERROR(CheckJson(json));
  std::string_view at = json;
  for (std::string_view rest = pointer; !rest.empty();) {
    const size_t end = std::min(rest.find('/', 1), rest.size());
    FLUX_ASSIGN_OR_RETURN(at, Descend(at, Unescape(rest.substr(1, end - 1)), pointer));
    rest.remove_prefix(end);
  }
  return at;
}

absl::StatusOr<std::vector<Slice>> SplitJsonArray(std::string_view json) {
  Scanner scanner(json);
  scanner.SkipSpace();
  if (!scanner.Take('[')) {
    FLUX_RETURN_IF_ERROR(CheckJson(json));
    return absl::InvalidArgumentError("expected a JSON array, got another kind of JSON value");
  }
  std::vector<Slice> out;
  scanner.SkipSpace();
  if (!scanner.Take(']')) {
    do {
      scanner.SkipSpace();
      const size_t from = scanner.position();
      if (!scanner.SkipValue()) return NotJson(scanner);
      out.push_back(
          {static_cast<uint32_t>(from), static_cast<uint32_t>(scanner.position() - from)});
      scanner.SkipSpace();
    } while (scanner.Take(','));
    if (!scanner.Take(']')) return NotJson(scanner);
  }
  scanner.SkipSpace();
  if (!scanner.AtEnd()) return NotJson(scanner);
  return out;
}

absl::StatusOr<std::vector<Slice>> SplitPayloadList(std::string_view list) {
  namespace pb = google::protobuf;
  pb::io::CodedInputStream in(reinterpret_cast<const uint8_t*>(list.data()),
                              static_cast<int>(list.size()));
  const auto malformed = [&] {
    return absl::InvalidArgumentError(absl::StrCat("the list payload is malformed at byte ",
                                                   in.CurrentPosition(), " of ", list.size()));
  };
  std::vector<Slice> out;
  while (true) {
    const uint32_t tag = in.ReadTag();
    if (tag == 0) {
      if (static_cast<size_t>(in.CurrentPosition()) != list.size()) return malformed();
      return out;
    }
    if (tag == (v1::PayloadList::kItemsFieldNumber << 3 | 2)) {
      uint32_t size = 0;
      if (!in.ReadVarint32(&size)) return malformed();
      const size_t from = static_cast<size_t>(in.CurrentPosition());
      if (size > list.size() - from || !in.Skip(static_cast<int>(size))) return malformed();
      out.push_back({static_cast<uint32_t>(from), size});
    } else if (!pb::internal::WireFormatLite::SkipField(&in, tag)) {
      return malformed();
    }
  }
}

absl::StatusOr<Value> Project(const Value& value, std::string_view pointer) {
  if (value.none() || pointer.empty()) return value;
  v1::Payload scratch;
  FLUX_ASSIGN_OR_RETURN(const std::string_view text, JsonText(value, &scratch));
  FLUX_ASSIGN_OR_RETURN(const std::string_view found, FindJsonPointer(text, pointer));
  return Value::FromData(found, v1::ENCODING_JSON);
}

absl::StatusOr<bool> IsJsonTrue(const Value& value) {
  v1::Payload scratch;
  FLUX_ASSIGN_OR_RETURN(const std::string_view text, JsonText(value, &scratch));
  if (Trim(text) == "true") return true;
  FLUX_RETURN_IF_ERROR(CheckJson(text));
  return false;
}

absl::StatusOr<int64_t> WholeNumber(const Value& value) {
  v1::Payload scratch;
  FLUX_ASSIGN_OR_RETURN(std::string_view text, JsonText(value, &scratch));
  text = Trim(text);
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a whole number of at least 0, got ", Excerpt(text, 40)));
  }
  return number;
}

absl::StatusOr<std::string> JsonString(const Value& value) {
  v1::Payload scratch;
  FLUX_ASSIGN_OR_RETURN(const std::string_view text, JsonText(value, &scratch));
  const auto parsed = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_string()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a JSON string, got ", Excerpt(Trim(text), 40)));
  }
  return parsed.get<std::string>();
}

absl::StatusOr<bool> EqualsJson(const Value& value, std::string_view json) {
  v1::Payload scratch;
  FLUX_ASSIGN_OR_RETURN(const std::string_view text, JsonText(value, &scratch));
  FLUX_RETURN_IF_ERROR(CheckJson(text));
  if (Trim(text) == Trim(json)) return true;
  const auto a = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto b = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  return !a.is_discarded() && !b.is_discarded() && a == b;
}

std::string ToUtf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8Length(text.substr(i));
    if (length == 0) {
      out += "\xef\xbf\xbd";
      ++i;
    } else {
      out += text.substr(i, length);
      i += length;
    }
  }
  return out;
}

std::string Excerpt(std::string_view text, size_t bytes_max) {
  if (text.size() <= bytes_max) return ToUtf8(text);
  // Not within a character: its other bytes are 10xxxxxx.
  while (bytes_max > 0 && (static_cast<unsigned char>(text[bytes_max]) & 0xc0) == 0x80) --bytes_max;
  return ToUtf8(text.substr(0, bytes_max)) + "…";
}

std::string ListSome(const std::vector<std::string>& names, size_t shown_max) {
  const size_t shown = std::min(names.size(), shown_max);
  std::string list =
      absl::StrJoin(names.begin(), names.begin() + static_cast<ptrdiff_t>(shown), ", ");
  if (shown < names.size()) absl::StrAppend(&list, " and ", names.size() - shown, " more");
  return list;
}

std::string QuoteJson(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  out.reserve(text.size() + 2);
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const size_t length = Utf8Length(text.substr(i));
    if (length == 0) {
      out += "\xef\xbf\xbd";
      ++i;
      continue;
    }
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20) {
      out += "\\u00";
      out += kHex[c >> 4];
      out += kHex[c & 15];
    } else {
      out += text.substr(i, length);
    }
    i += length;
  }
  out += '"';
  return out;
}

std::string FailureJson(const v1::Failure& failure) {
  return absl::StrCat("{\"type\":", QuoteJson(failure.type()),
                      ",\"message\":", QuoteJson(failure.message()),
                      ",\"non_retriable\":", failure.non_retriable() ? "true" : "false",
                      ",\"source\":", QuoteJson(failure.source()), "}");
}

}  // namespace flux::engine
