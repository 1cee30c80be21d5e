// What a Debian copyright file says about licences, and what SPDX calls them. Pure functions over
// text: no files, no clock, no Flux; the workers and the plain audit call the same ones.
#ifndef LICENCE_AUDIT_LICENCES_H_
#define LICENCE_AUDIT_LICENCES_H_

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace licence_audit {

// Text of one statement is kept up to this size; the phrases that give a licence away stand near
// its beginning.
inline constexpr std::size_t kStatementBytesMax = 128 * 1024;
// Texts kept of one file; further statements keep their names only.
inline constexpr std::size_t kFileTextBytesMax = 1024 * 1024;
// Statements kept of one file, distinct names counted. The largest file of Debian 12 has about 200.
inline constexpr std::size_t kStatementsMax = 2'000;

// One licence statement: its short name, its text, or both.
struct LicenceStatement {
  std::string name;  // the first line of a machine-readable License field; empty in free text
  std::string text;  // ASCII, white space collapsed
  bool operator==(const LicenceStatement&) const = default;
};

struct CopyrightFile {
  bool machine_readable = false;
  std::vector<LicenceStatement> statements;  // one a distinct name, in the order of the file
};

// Reads a copyright file: the machine-readable format 1.0 (also its drafts, and files which lack
// only the header), or else free text, which becomes one statement. Takes any bytes; what is not
// ASCII becomes '?'.
CopyrightFile ParseCopyright(std::string_view bytes);

// SPDX identifiers of the licences that a text grants or reproduces, sorted, each once; empty if it
// knows none. Recognises wording, references to /usr/share/common-licenses and the usual notices.
std::vector<std::string> RecogniseLicences(std::string_view text);

// "A AND (B OR C)" of expressions that hold together; empty for none.
std::string AllOf(const std::vector<std::string>& spdx_expressions);

// Meanings of names that only their file explains: a lower-case short name to an SPDX expression.
using LocalNames = std::map<std::string, std::string, std::less<>>;

// A licence short name or expression ("GPL-2+ or Artistic, and MIT/X11") as an SPDX expression with
// sorted operands. A name found neither here nor in `local` becomes LicenseRef-<name>; an unknown
// exception AdditionRef-<name>. Empty for an empty name. GNU licences named without a version mean
// the first one or later, as they say themselves.
std::string NormaliseExpression(std::string_view expression, const LocalNames& local);

// Whether the expression names at least one licence that is known, public domain included.
bool IsIdentified(std::string_view spdx_expression);

}  // namespace licence_audit

#endif  // LICENCE_AUDIT_LICENCES_H_
