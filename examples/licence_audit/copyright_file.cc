#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "licences.h"
#include "text.h"

namespace licence_audit {
namespace {

template <typename Visit>
void ForEachLine(std::string_view bytes, Visit visit) {
  while (!bytes.empty()) {
    const std::size_t end = std::min(bytes.find('\n'), bytes.size());
    visit(bytes.substr(0, end));
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
  }
}

bool IsMachineReadable(std::string_view bytes) {
  bool format = false;
  bool files = false;
  bool license = false;
  ForEachLine(bytes, [&](std::string_view line) {
    format |= StartsWithIgnoringCase(line, "format:") ||
              StartsWithIgnoringCase(line, "format-specification:");
    files |= StartsWithIgnoringCase(line, "files:");
    license |= StartsWithIgnoringCase(line, "license:");
  });
  return license && (format || files);
}

// A synopsis that is a sentence is the text of a licence whose author forgot to name it.
bool LooksLikeText(std::string_view synopsis) {
  constexpr std::size_t kNameBytesMax = 120;
  constexpr std::array<std::string_view, 7> kOpenings = {
      "permission ",  "redistribution ", "this ",  "the ",
      "by obtaining", "licensed under",  "you may"};
  if (synopsis.size() > kNameBytesMax) return true;
  return synopsis.size() > 30 && std::any_of(kOpenings.begin(), kOpenings.end(), [&](auto opening) {
           return StartsWithIgnoringCase(synopsis, opening);
         });
}

// Collects statements, one a name; a later one fills in a text that the first lacked.
class Statements {
 public:
  void Add(LicenceStatement statement) {
    if (statement.name.empty() && statement.text.empty()) return;
    while (statement.name.starts_with("* ")) statement.name.erase(0, 2);
    if (LooksLikeText(statement.name)) {
      statement.text = statement.name + " " + statement.text;
      statement.name.clear();
    }
    const std::string key = statement.name.empty() ? statement.text : Lower(statement.name);
    const auto [at, added] = index_.emplace(key, statements_.size());
    if (!added) {
      if (statements_[at->second].text.empty() &&
          bytes_ + statement.text.size() <= kFileTextBytesMax) {
        bytes_ += statement.text.size();
        statements_[at->second].text = std::move(statement.text);
      }
    } else if (statements_.size() < kStatementsMax) {
      if (bytes_ + statement.text.size() > kFileTextBytesMax) statement.text.clear();
      bytes_ += statement.text.size();
      statements_.push_back(std::move(statement));
    } else {
      index_.erase(at);
    }
  }
  std::vector<LicenceStatement> Take() && { return std::move(statements_); }

 private:
  std::map<std::string, std::size_t> index_;
  std::size_t bytes_ = 0;
  std::vector<LicenceStatement> statements_;
};

}  // namespace

CopyrightFile ParseCopyright(std::string_view bytes) {
  CopyrightFile file;
  file.machine_readable = IsMachineReadable(bytes);
  Statements statements;
  if (!file.machine_readable) {
    LicenceStatement whole;
    ForEachLine(bytes, [&](std::string_view line) {
      AppendCollapsed(Trim(line), kStatementBytesMax, whole.text);
    });
    statements.Add(std::move(whole));
    file.statements = std::move(statements).Take();
    return file;
  }
  LicenceStatement current;
  bool in_license = false;
  const auto finish = [&] {
    if (in_license) statements.Add(std::exchange(current, {}));
    in_license = false;
  };
  ForEachLine(bytes, [&](std::string_view line) {
    const std::string_view content = Trim(line);
    if (content.empty()) {
      finish();
    } else if (IsSpace(line.front())) {
      if (in_license && content != ".") AppendCollapsed(content, kStatementBytesMax, current.text);
    } else {
      finish();
      constexpr std::string_view kField = "license:";
      if (StartsWithIgnoringCase(line, kField)) {
        in_license = true;
        AppendCollapsed(Trim(line.substr(kField.size())), kStatementBytesMax, current.name);
      }
    }
  });
  finish();
  file.statements = std::move(statements).Take();
  return file;
}

}  // namespace licence_audit
