// What the parts of licences.h share: small text helpers and the names of the GNU family. Not part
// of its interface.
#ifndef LICENCE_AUDIT_TEXT_H_
#define LICENCE_AUDIT_TEXT_H_

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <string>
#include <string_view>

namespace licence_audit {

// SPDX has no identifier for it.
inline constexpr std::string_view kPublicDomain = "LicenseRef-public-domain";

inline bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
inline bool IsDigit(char c) { return c >= '0' && c <= '9'; }
inline bool IsWord(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }
inline char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

inline std::string Lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](char c) { return Lower(c); });
  return out;
}

inline std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  return text;
}

inline bool StartsWithIgnoringCase(std::string_view text, std::string_view lower_prefix) {
  return text.size() >= lower_prefix.size() &&
         std::equal(lower_prefix.begin(), lower_prefix.end(), text.begin(),
                    [](char a, char b) { return a == Lower(b); });
}

inline bool Contains(std::string_view text, std::string_view phrase) {
  return text.find(phrase) != std::string_view::npos;
}

// Appends `line` to `out` with white space collapsed and bytes outside printable ASCII as one '?'.
inline void AppendCollapsed(std::string_view line, std::size_t bytes_max, std::string& out) {
  if (!out.empty() && out.back() != ' ') out += ' ';
  for (const char c : line) {
    if (out.size() >= bytes_max) break;
    const bool space = IsSpace(c);
    const bool printable = c > ' ' && c < '\x7f';
    const char put = space ? ' ' : printable ? c : '?';
    if (!printable && !out.empty() && out.back() == put) continue;
    out += put;
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
}

enum class GnuFamily { kGpl, kLgpl, kAgpl, kGfdl };

// "GPL-2.0-or-later" and its kin; an empty version means the first one or later.
inline std::string GnuIdentifier(GnuFamily family, std::string version, bool or_later,
                                 bool no_invariants = false) {
  struct Names {
    std::string_view name;
    std::string_view first;
    std::array<std::string_view, 4> versions;
  };
  static constexpr std::array<Names, 4> kNames = {{
      {"GPL", "1.0", {"1.0", "2.0", "3.0", ""}},
      {"LGPL", "2.0", {"2.0", "2.1", "3.0", ""}},
      {"AGPL", "3.0", {"1.0", "3.0", "", ""}},
      {"GFDL", "1.1", {"1.1", "1.2", "1.3", ""}},
  }};
  const Names& names = kNames[static_cast<std::size_t>(family)];
  if (version.empty()) {
    version = names.first;
    or_later = true;
  }
  if (version.find('.') == std::string::npos) version += ".0";
  // The Library GPL has no version 1; authors who write it mean the first there is.
  if (std::find(names.versions.begin(), names.versions.end(), version) == names.versions.end()) {
    return "";
  }
  std::string id(names.name);
  id += "-" + version;
  if (no_invariants) id += "-no-invariants";
  return id + (or_later ? "-or-later" : "-only");
}

// "2", "2.1" at the start of text; a sentence's full stop is not part of it.
inline std::string LeadingVersion(std::string_view text) {
  std::size_t n = 0;
  while (n < text.size() && IsDigit(text[n])) ++n;
  if (n == 0 || n > 2) return "";
  if (n + 1 < text.size() && text[n] == '.' && IsDigit(text[n + 1])) n += 2;
  return std::string(text.substr(0, n));
}

}  // namespace licence_audit

#endif  // LICENCE_AUDIT_TEXT_H_
