#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <utility>

#include "licences.h"
#include "text.h"

namespace licence_audit {
namespace {

struct Alias {
  std::string_view key;  // lower case, words joined by '-'
  std::string_view identifier;
};

constexpr Alias kAliases[] = {
    {"0bsd", "0BSD"},
    {"afl-2.0", "AFL-2.0"},
    {"afl-2.1", "AFL-2.1"},
    {"apache", "Apache-2.0"},
    {"apache-1.0", "Apache-1.0"},
    {"apache-1.1", "Apache-1.1"},
    {"apache-2", "Apache-2.0"},
    {"apache-2.0", "Apache-2.0"},
    {"apache2", "Apache-2.0"},
    {"apache2.0", "Apache-2.0"},
    {"apache-2.0-with-llvm-exception", "Apache-2.0 WITH LLVM-exception"},
    {"apache-2-llvm-exceptions", "Apache-2.0 WITH LLVM-exception"},
    {"artistic", "Artistic-1.0-Perl"},
    {"artistic-1", "Artistic-1.0-Perl"},
    {"artistic-1.0", "Artistic-1.0"},
    {"artistic-1.0-perl", "Artistic-1.0-Perl"},
    {"artistic-2", "Artistic-2.0"},
    {"artistic-2.0", "Artistic-2.0"},
    {"beer-ware", "Beerware"},
    {"beerware", "Beerware"},
    {"boost", "BSL-1.0"},
    {"boost-1.0", "BSL-1.0"},
    {"bsl", "BSL-1.0"},
    {"bsl-1", "BSL-1.0"},
    {"bsl-1.0", "BSL-1.0"},
    {"bsd-0-clause", "0BSD"},
    {"bsd-1-clause", "BSD-1-Clause"},
    {"bsd-2", "BSD-2-Clause"},
    {"bsd-2-clause", "BSD-2-Clause"},
    {"bsd2", "BSD-2-Clause"},
    {"bsd-2-clause-freebsd", "BSD-2-Clause"},
    {"bsd-2-clause-netbsd", "BSD-2-Clause"},
    {"bsd-3", "BSD-3-Clause"},
    {"bsd-3-clause", "BSD-3-Clause"},
    {"bsd3", "BSD-3-Clause"},
    {"bsd-3-clauses", "BSD-3-Clause"},
    {"bsd-2-clauses", "BSD-2-Clause"},
    {"bsd-4", "BSD-4-Clause"},
    {"bsd-4-clause", "BSD-4-Clause"},
    {"bsd-4-clause-uc", "BSD-4-Clause-UC"},
    {"bzip2", "bzip2-1.0.6"},
    {"bzip2-1.0.6", "bzip2-1.0.6"},
    {"cc-by-3.0", "CC-BY-3.0"},
    {"cc-by-4.0", "CC-BY-4.0"},
    {"cc-by-sa-3.0", "CC-BY-SA-3.0"},
    {"cc-by-sa-4.0", "CC-BY-SA-4.0"},
    {"cc0", "CC0-1.0"},
    {"cc0-1.0", "CC0-1.0"},
    {"cddl-1", "CDDL-1.0"},
    {"cddl-1.0", "CDDL-1.0"},
    {"curl", "curl"},
    {"cpl-1.0", "CPL-1.0"},
    {"edl-1", "BSD-3-Clause"},
    {"edl-1.0", "BSD-3-Clause"},
    {"epl-1.0", "EPL-1.0"},
    {"epl-2", "EPL-2.0"},
    {"epl-2.0", "EPL-2.0"},
    {"expat", "MIT"},
    {"fsfap", "FSFAP"},
    {"fsful", "FSFUL"},
    {"fsfullr", "FSFULLR"},
    {"ftl", "FTL"},
    {"freetype", "FTL"},
    {"hpnd", "HPND"},
    {"icu", "ICU"},
    {"ijg", "IJG"},
    {"isc", "ISC"},
    {"khronos", "MIT-Khronos-old"},
    {"latex2e", "Latex2e"},
    {"libpng", "Libpng"},
    {"linux-man-pages-copyleft", "Linux-man-pages-copyleft"},
    {"lppl-1.3c+", "LPPL-1.3c"},
    {"mit", "MIT"},
    {"mit-cmu", "MIT-CMU"},
    {"mit-open-group", "MIT-open-group"},
    {"mit/expat", "MIT"},
    {"mit/x11", "MIT"},
    {"mit-x11", "MIT"},
    {"mpl-1.0", "MPL-1.0"},
    {"mpl-1.1", "MPL-1.1"},
    {"mpl-2", "MPL-2.0"},
    {"mpl-2.0", "MPL-2.0"},
    {"ncsa", "NCSA"},
    {"ntp", "NTP"},
    {"ofl-1.1", "OFL-1.1"},
    {"ofl", "OFL-1.1"},
    {"sil-1.1", "OFL-1.1"},
    {"oldap-2.8", "OLDAP-2.8"},
    {"openldap-2.8", "OLDAP-2.8"},
    {"openldap", "OLDAP-2.8"},
    {"openssl", "OpenSSL"},
    {"opl-1+", "OPUBL-1.0"},
    {"pd", kPublicDomain},
    {"php-3.01", "PHP-3.01"},
    {"postgresql", "PostgreSQL"},
    {"psf", "PSF-2.0"},
    {"psf-2", "PSF-2.0"},
    {"psf-2.0", "PSF-2.0"},
    {"public-domain", kPublicDomain},
    {"publicdomain", kPublicDomain},
    {"python", "PSF-2.0"},
    {"python-2.0", "Python-2.0"},
    {"qpl-1.0", "QPL-1.0"},
    {"rsa-md", "RSA-MD"},
    {"ruby", "Ruby"},
    {"sgi-b-2.0", "SGI-B-2.0"},
    {"sleepycat", "Sleepycat"},
    {"smlnj", "SMLNJ"},
    {"tcl", "TCL"},
    {"unicode", "Unicode-DFS-2016"},
    {"unicode-dfs-2016", "Unicode-DFS-2016"},
    {"unlicense", "Unlicense"},
    {"upl-1.0", "UPL-1.0"},
    {"vim", "Vim"},
    {"w3c", "W3C"},
    {"wtfpl", "WTFPL"},
    {"wtfpl-2", "WTFPL"},
    {"x11", "X11"},
    {"zlib", "Zlib"},
    {"zlib/libpng", "Zlib"},
    {"zpl-2.1", "ZPL-2.1"},
    {"zope", "ZPL-2.1"},
};

constexpr Alias kExceptions[] = {
    {"autoconf", "Autoconf-exception-generic"},
    {"autoconf-data", "Autoconf-exception-2.0"},
    {"autoconf-2.0", "Autoconf-exception-2.0"},
    {"bison", "Bison-exception-2.2"},
    {"bison-2.2", "Bison-exception-2.2"},
    {"classpath", "Classpath-exception-2.0"},
    {"font", "Font-exception-2.0"},
    {"gcc", "GCC-exception-3.1"},
    {"gcc-runtime", "GCC-exception-3.1"},
    {"gcc-runtime-library", "GCC-exception-3.1"},
    {"libtool", "Libtool-exception"},
    {"linux-syscall-note", "Linux-syscall-note"},
    {"llvm", "LLVM-exception"},
    {"texinfo", "Texinfo-exception"},
};

template <std::size_t N>
std::optional<std::string> Find(const Alias (&table)[N], std::string_view key) {
  for (const Alias& alias : table) {
    if (alias.key == key) return std::string(alias.identifier);
  }
  return std::nullopt;
}

// Lower case, quotes dropped, inner spaces and underscores as '-', without "the", "license" and
// "only".
std::string Key(std::string_view name) {
  std::string key;
  for (const char c : Trim(name)) {
    if (c == '"' || c == '\'' || c == '`' || c == '(' || c == ')') continue;
    const char put = c == ' ' || c == '_' || c == '~' ? '-' : Lower(c);
    if (put == '-' && (key.empty() || key.back() == '-')) continue;
    key += put;
  }
  while (!key.empty() &&
         (key.back() == '-' || key.back() == '.' || key.back() == ',' || key.back() == ';')) {
    key.pop_back();
  }
  constexpr std::array<std::string_view, 2> kArticles = {"the-", "a-"};
  for (const std::string_view article : kArticles) {
    if (key.starts_with(article)) key.erase(0, article.size());
  }
  constexpr std::array<std::string_view, 5> kTails = {"-license", "-licence", "-licenses", "-style",
                                                      "-exception"};
  for (const std::string_view tail : kTails) {
    if (key.ends_with(tail) && key.size() > tail.size()) key.erase(key.size() - tail.size());
  }
  return key;
}

// GPL-2+, LGPLv2.1, gpl-2.0-or-later, GFDL-NIV-1.3+, gpl: the GNU family by its own grammar.
std::optional<std::string> GnuName(std::string_view key) {
  if (key.starts_with("gnu-")) key.remove_prefix(4);
  static constexpr std::array<std::pair<std::string_view, GnuFamily>, 8> kFamilies = {
      {{"agpl", GnuFamily::kAgpl},
       {"lgpl", GnuFamily::kLgpl},
       {"lpgl", GnuFamily::kLgpl},
       {"gpl", GnuFamily::kGpl},
       {"gfdl", GnuFamily::kGfdl},
       {"fdl", GnuFamily::kGfdl},
       {"lesser-gpl", GnuFamily::kLgpl},
       {"affero-gpl", GnuFamily::kAgpl}}};
  const auto family = std::find_if(kFamilies.begin(), kFamilies.end(),
                                   [&](const auto& f) { return key.starts_with(f.first); });
  if (family == kFamilies.end()) return std::nullopt;
  key.remove_prefix(family->first.size());
  const auto skip = [&](std::string_view prefix) {
    if (!key.starts_with(prefix)) return false;
    key.remove_prefix(prefix.size());
    return true;
  };
  bool or_later = false;
  skip("-");
  const bool no_invariants = skip("niv") || skip("no-invariants");
  skip("-");
  skip("version-");
  skip("v");
  if (skip(">=")) or_later = true;
  skip("-");
  const std::string version = LeadingVersion(key);
  key.remove_prefix(version.size());
  if (skip("+") || skip("-or-later") || skip("-or-newer")) {
    or_later = true;
  } else {
    skip("-only");
  }
  if (skip("-no-invariants-or-later")) or_later = true;
  if (!key.empty()) return std::nullopt;
  std::string id = GnuIdentifier(family->second, version, or_later, no_invariants);
  if (id.empty()) return std::nullopt;
  return id;
}

// A name as the tail of a LicenseRef: letters, digits, '-' and '.'.
std::string Reference(std::string_view prefix, std::string_view name) {
  constexpr std::size_t kNameBytesMax = 60;
  std::string out(prefix);
  for (const char c : name.substr(0, kNameBytesMax)) {
    const bool plain = IsWord(c) || c == '.' || c == '-';
    if (plain) {
      out += c;
    } else if (out.back() != '-') {
      out += '-';
    }
  }
  while (out.size() > prefix.size() && out.back() == '-') out.pop_back();
  return out.size() > prefix.size() ? out : std::string(prefix) + "unnamed";
}

std::optional<std::string> KnownName(std::string_view name) {
  const std::string key = Key(name);
  if (auto alias = Find(kAliases, key)) return alias;
  return GnuName(key);
}

// Splits at a lower-case separator that stands outside parentheses.
std::vector<std::string> Split(const std::string& text, std::string_view separator) {
  const std::string lower = Lower(text);
  std::vector<std::string> parts;
  int depth = 0;
  std::size_t from = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '(') ++depth;
    if (text[i] == ')') depth = std::max(0, depth - 1);
    if (depth == 0 && std::string_view(lower).substr(i).starts_with(separator)) {
      parts.emplace_back(Trim(std::string_view(text).substr(from, i - from)));
      i += separator.size() - 1;
      // A word separator's closing space may open the next separator.
      if (separator.back() == ' ') --i;
      from = i + 1;
    }
  }
  parts.emplace_back(Trim(std::string_view(text).substr(std::min(from, text.size()))));
  std::erase_if(parts, [](const std::string& part) { return part.empty(); });
  return parts;
}

bool IsCompound(std::string_view spdx) { return Contains(spdx, " OR ") || Contains(spdx, " AND "); }

// Operands of one operator, sorted, each once; nested operands of the same operator join in, of the
// other get parentheses.
std::string Combine(const std::vector<std::string>& operands, std::string_view word) {
  std::set<std::string> flat;
  for (const std::string& operand : operands) {
    for (std::string& part : Split(operand, " " + Lower(word) + " ")) flat.insert(std::move(part));
  }
  std::string out;
  for (const std::string& operand : flat) {
    if (!out.empty()) out += " " + std::string(word) + " ";
    const bool group = flat.size() > 1 && IsCompound(operand);
    // Split() leaves a part of the other operator either bare or already in its parentheses.
    const bool grouped = operand.front() == '(' && Split(operand, " or ").size() == 1 &&
                         Split(operand, " and ").size() == 1;
    out += group && !grouped ? "(" + operand + ")" : operand;
  }
  return out;
}

std::string NormaliseName(std::string_view name, const LocalNames& local) {
  if (auto known = KnownName(name)) return *known;
  const std::string lower = Lower(Trim(name));
  if (const auto at = local.find(lower); at != local.end()) return at->second;
  for (const std::string_view word : {" with ", "-with-"}) {
    const std::size_t at = lower.find(word);
    if (at == std::string::npos || at == 0) continue;
    const std::string_view rest = Trim(std::string_view(lower).substr(at + word.size()));
    const auto base = KnownName(std::string_view(lower).substr(0, at));
    if (!base.has_value() || rest.empty()) continue;
    const auto exception = Find(kExceptions, Key(rest));
    return *base + " WITH " + (exception ? *exception : Reference("AdditionRef-", rest));
  }
  return Reference("LicenseRef-", Trim(name));
}

// Debian's grammar: a comma before "and" or "or" binds loosest, then "or", then "and".
std::string NormaliseAt(const std::string& text, const LocalNames& local, std::size_t level,
                        int depth) {
  struct Operator {
    std::string_view separator;
    std::string_view word;
  };
  static constexpr std::array<Operator, 7> kOperators = {{{", and ", "AND"},
                                                          {", or ", "OR"},
                                                          {" or ", "OR"},
                                                          {" | ", "OR"},
                                                          {" and ", "AND"},
                                                          {" & ", "AND"},
                                                          {", ", "AND"}}};
  constexpr int kDepthMax = 16;
  for (; level < kOperators.size() && depth < kDepthMax; ++level) {
    const std::vector<std::string> parts = Split(text, kOperators[level].separator);
    if (parts.size() < 2) continue;
    std::vector<std::string> operands;
    for (const std::string& part : parts) {
      operands.push_back(NormaliseAt(part, local, level + 1, depth + 1));
    }
    std::erase(operands, "");
    return Combine(operands, kOperators[level].word);
  }
  std::string_view name = Trim(text);
  if (name.size() > 2 && name.front() == '(' && name.back() == ')' && depth < kDepthMax) {
    return NormaliseAt(std::string(name.substr(1, name.size() - 2)), local, 0, depth + 1);
  }
  return name.empty() ? "" : NormaliseName(name, local);
}

}  // namespace

std::string AllOf(const std::vector<std::string>& spdx_expressions) {
  return Combine(spdx_expressions, "AND");
}

std::string NormaliseExpression(std::string_view expression, const LocalNames& local) {
  std::string text(Trim(expression));
  // "LGPLv3+_or_GPLv2+" and "GPL-2+/MIT" style joins; whole names of that look come first.
  if (KnownName(text).has_value() || local.contains(Lower(text))) return NormaliseName(text, local);
  // "GPL-2 or later" is one name, not two.
  for (const std::string_view phrase :
       {" or later", " or newer", " or any later version", "_or_later"}) {
    const std::string lower = Lower(text);
    for (std::size_t at = lower.rfind(phrase); at != std::string::npos && at > 0;
         at = at == 0 ? std::string::npos : lower.rfind(phrase, at - 1)) {
      text.replace(at, phrase.size(), text[at - 1] == '+' ? "" : "+");
    }
  }
  for (const std::string_view word : {"_or_", "_and_"}) {
    for (std::size_t at = Lower(text).find(word); at != std::string::npos;
         at = Lower(text).find(word)) {
      text[at] = ' ';
      text[at + word.size() - 1] = ' ';
    }
  }
  return NormaliseAt(text, local, 0, 0);
}

bool IsIdentified(std::string_view spdx_expression) {
  constexpr std::string_view kReference = "LicenseRef-";
  std::string_view rest = spdx_expression;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(' '), rest.size());
    std::string_view word = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    while (!word.empty() && word.front() == '(') word.remove_prefix(1);
    while (!word.empty() && word.back() == ')') word.remove_suffix(1);
    if (word.empty() || word == "AND" || word == "OR" || word == "WITH") continue;
    if (word.starts_with("AdditionRef-")) continue;
    if (!word.starts_with(kReference) || word == kPublicDomain) return true;
  }
  return false;
}

}  // namespace licence_audit
