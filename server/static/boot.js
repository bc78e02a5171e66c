// Sets the theme before the first paint; a module would come too late and flash.
{
  const asked = new URLSearchParams(location.search).get("theme") ?? localStorage.getItem("theme");
  if (asked === "dark" || asked === "light") document.documentElement.dataset.theme = asked;
}
