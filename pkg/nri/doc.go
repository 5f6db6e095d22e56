// Package nri lets plugins of the Node Resource Interface look on at the pods and containers of a node and
// change them. It turns what the managers tell into requests to plugins, and the plugins' answers into edits
// of specifications, updates and evictions. It holds that no plugin takes a pod out of its range of ids. How
// plugins are found, connected and asked is the library's; what a container is made of stays the managers'.
package nri
